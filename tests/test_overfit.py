"""Each family learns four images by heart: model, assignment, loss, decoder and metric speak the same language."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detkit import recipe
from detkit.assign import HungarianAssigner
from detkit.decode import DETRDecode
from detkit.losses import DETRLoss
from detkit.metrics import CocoMetric
from detkit.ops.targets import pack_targets
from detkit.training import Muon, parameter_groups
from detkit.types import GroundTruth, Target
from tests.helpers.small_rtdetr import small_rtdetr

SIDE = 96


def four_images() -> tuple[Tensor, list[Target]]:
    """Bright boxes on noise; the colour tells the class, the last image has none."""
    rng = torch.Generator().manual_seed(0)
    images, targets = torch.rand(4, 3, SIDE, SIDE, generator=rng) * 0.3, []
    for index, count in enumerate((1, 2, 3, 0)):
        boxes, labels = torch.zeros(count, 4), torch.arange(count)
        for row in range(count):
            left, top = 4 + 30 * row, 8 + 9 * index + 6 * row
            boxes[row] = torch.tensor([left, top, left + 20 + 3 * index, top + 34.0])
            images[index, row, top : top + 34, left : left + 20 + 3 * index] = 0.9
        targets.append(Target(boxes, labels, torch.zeros(0, 4), index, (SIDE, SIDE)))
    return images, targets


def ground_truth(targets: list[Target]) -> GroundTruth:
    boxes = torch.cat([target.boxes for target in targets]).double().numpy()
    sizes = boxes[:, 2:] - boxes[:, :2]
    return GroundTruth(
        image_ids=np.arange(4),
        sizes_hw=np.full((4, 2), SIDE, np.int32),
        boxes_xywh=np.concatenate([boxes[:, :2], sizes], axis=1),
        areas=sizes.prod(axis=1),
        crowd=np.zeros(len(boxes), bool),
        labels=torch.cat([target.labels for target in targets]).numpy(),
        image_rows=np.repeat(np.arange(4), [len(target.labels) for target in targets]),
        category_ids=np.array([3, 5, 9]),
        class_names=("red", "green", "blue"),
    )


def learn_by_heart(
    model: nn.Module,
    loss: Callable[..., dict[str, Tensor]],
    decode: Callable[..., Any],
    optimizer: torch.optim.Optimizer,
    steps: int,
) -> tuple[float, float, dict[str, Tensor]]:
    """Loss of the first and of the last step, and what the metric says after them."""
    images, of_images = four_images()
    targets = pack_targets(of_images)
    takes_targets = getattr(model, "takes_targets", False)
    lr = optimizer.param_groups[0]["lr"]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, cycle_momentum=False)
    first = last = float("nan")
    for step in range(steps):
        predictions = model(images, targets) if takes_targets else model(images)
        total = torch.stack(list(loss(predictions, targets).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
        first, last = (total.item(), last) if step == 0 else (first, total.item())
    metric = CocoMetric(ground_truth(of_images))
    with torch.no_grad():
        for _ in range(100):  # so few steps are too few for the running statistics of batch norm
            model(images)
        metric.update(decode(model.eval()(images)), targets)
    return first, last, metric.compute()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps"), [("yolo_csp_n", 100), pytest.param("yolox_nano", 200, marks=pytest.mark.long)]
)
def test_yolo_learns_four_images_by_heart(name: str, steps: int) -> None:
    torch.manual_seed(0)
    config = recipe.load([f"recipe={name}"]).config
    config["model"]["head"]["num_classes"] = 3
    model, loss, decode = (recipe.instantiate(config[part]) for part in ("model", "loss", "decode"))
    optimizer = Muon(parameter_groups(model), lr=0.02)
    first, last, numbers = learn_by_heart(model, loss, decode, optimizer, steps)
    assert last < 0.25 * first
    assert numbers["AP50"] > 0.99
    assert numbers["AP"] > 0.8


@pytest.mark.long
def test_rtdetr_learns_four_images_by_heart() -> None:
    """Noise stays noise, so less of the loss goes away than of a YOLO's."""
    model = small_rtdetr(seed=0, num_classes=3, num_layers=3)
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=1e-3, weight_decay=1e-4)
    first, last, numbers = learn_by_heart(model, DETRLoss(HungarianAssigner()), DETRDecode(), optimizer, 150)
    assert last < 0.5 * first
    assert numbers["AP50"] > 0.99
    assert numbers["AP"] > 0.9
