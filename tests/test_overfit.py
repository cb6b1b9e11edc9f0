"""Each family learns four images by heart: model, assignment, loss, decoder and metric speak the same language."""

import numpy as np
import pytest
import torch
from torch import Tensor

from detkit import recipe
from detkit.metrics import CocoMetric
from detkit.training import Muon, parameter_groups
from detkit.types import GroundTruth, Target

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


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), [("yolo_csp_n", 100), ("yolox_nano", 200)])
def test_learns_four_images_by_heart(name: str, steps: int) -> None:
    torch.manual_seed(0)
    config = recipe.load([f"recipe={name}"]).config
    config["model"]["head"]["num_classes"] = 3
    model, loss, decode = (recipe.instantiate(config[part]) for part in ("model", "loss", "decode"))
    images, targets = four_images()
    optimizer = Muon(parameter_groups(model), lr=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=steps, cycle_momentum=False)
    first = last = float("nan")
    for step in range(steps):
        total = torch.stack(list(loss(model(images), targets).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
        first, last = (total.item(), last) if step == 0 else (first, total.item())
    assert last < 0.25 * first
    metric = CocoMetric(ground_truth(targets))
    with torch.no_grad():
        for _ in range(100):  # so few steps are too few for the running statistics of batch norm
            model(images)
        metric.update(decode(model.eval()(images)), targets)
    numbers = metric.compute()
    assert numbers["AP50"] > 0.99
    assert numbers["AP"] > 0.8
