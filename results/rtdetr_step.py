"""Seconds and memory of one training step of RT-DETR, compared with another implementation.

    python -m results.rtdetr_step

Both are r18 with random weights: forward with denoising queries, loss with auxiliary outputs, backward, AdamW, in
float32 on the same random images and boxes. Each measurement has a process of its own, and the two implementations
take turns, so that a change in the load of the machine meets both.
"""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

IMAGES, SIDE_PX, OBJECTS, CLASSES = 8, 320, 10, 80
ROUNDS, STEPS, WARM_UP = 3, 6, 2
Step = Callable[[Tensor, Tensor, Tensor], Tensor]


def detkit_step() -> tuple[nn.Module, Step]:
    """The recipe's model and loss."""
    from detkit import recipe
    from detkit.ops.targets import pack_targets
    from detkit.types import Target

    config = recipe.load(["recipe=rtdetr_r18", "data.root=unused", f"model.head.num_classes={CLASSES}"]).config
    model, loss = recipe.instantiate(config["model"]), recipe.instantiate(config["loss"])

    def step(images: Tensor, boxes_cxcywh_norm: Tensor, labels: Tensor) -> Tensor:
        centre, half = boxes_cxcywh_norm[..., :2] * SIDE_PX, boxes_cxcywh_norm[..., 2:] * SIDE_PX / 2
        boxes = torch.cat((centre - half, centre + half), dim=-1)
        size_hw = (SIDE_PX, SIDE_PX)
        of_images = [Target(boxes[i], labels[i], torch.zeros(0, 4), i, size_hw) for i in range(len(images))]
        targets = pack_targets(of_images)
        return torch.stack(list(loss(model(images, targets), targets).values())).sum()

    return model, step


def transformers_step() -> tuple[nn.Module, Step]:
    """The port in transformers, at the same size, with batch norms that train, as in the authors' r18."""
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    of_backbone: dict[str, Any] = {
        "layer_type": "basic",
        "depths": [2, 2, 2, 2],
        "hidden_sizes": [64, 128, 256, 512],
        "out_features": ["stage2", "stage3", "stage4"],
    }
    of_model: dict[str, Any] = {
        "backbone_config": RTDetrResNetConfig(**of_backbone),
        "encoder_in_channels": [128, 256, 512],
        "hidden_expansion": 0.5,
        "decoder_layers": 3,
        "num_labels": CLASSES,
        "freeze_backbone_batch_norms": False,
    }
    model = RTDetrForObjectDetection(RTDetrConfig(**of_model))

    def step(images: Tensor, boxes_cxcywh_norm: Tensor, labels: Tensor) -> Tensor:
        targets = [{"class_labels": labels[i], "boxes": boxes_cxcywh_norm[i]} for i in range(len(images))]
        return model(pixel_values=images, labels=targets).loss

    return model, step


STEPS_OF = {"detkit": detkit_step, "transformers": transformers_step}


def measure(name: str) -> tuple[float, float]:
    """Seconds of the median step, and MB that training added to what the process had before its first step."""
    torch.manual_seed(0)
    model, step = STEPS_OF[name]()
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-5)
    images = torch.rand(IMAGES, 3, SIDE_PX, SIDE_PX)
    boxes = torch.cat((torch.rand(IMAGES, OBJECTS, 2) * 0.6 + 0.2, torch.rand(IMAGES, OBJECTS, 2) * 0.3 + 0.05), dim=-1)
    labels = torch.randint(CLASSES, (IMAGES, OBJECTS))
    before = _peak_mb()
    times = []
    for _ in range(WARM_UP + STEPS):
        start = time.perf_counter()
        optimizer.zero_grad()
        step(images, boxes, labels).backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return statistics.median(times[WARM_UP:]), _peak_mb() - before


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(argv: list[str]) -> None:
    """Measure the implementation that is named, or both in turns."""
    if argv:
        print(*measure(argv[0]))
        return
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in STEPS_OF}
    for _ in range(ROUNDS):
        for name, found in results.items():
            done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
            seconds, memory_mb = done.stdout.split()[-2:]
            found.append((float(seconds), float(memory_mb)))
    print(f"{'':14} s/step   lowest to highest   MB added")
    for name, found in results.items():
        seconds = [pair[0] for pair in found]
        memory_mb = statistics.median(pair[1] for pair in found)
        print(
            f"{name:14} {statistics.median(seconds):6.3f}"
            f"   {min(seconds):6.3f} to {max(seconds):6.3f}   {memory_mb:8.0f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
