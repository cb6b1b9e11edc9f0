"""The losses of ten training steps of each family equal those in tests/golden to 1e-9.

The model is in float64, the weights and images are made without random numbers of the library, and the learning rate is
small. So processors that round differently differ by less than 1e-11. With a large learning rate that difference would
grow a hundredfold in each step.

A change of numerics updates the file in tests/golden in the same commit, with the reason:
    DETKIT_WRITE_GOLDEN=1 pytest tests/test_loss_curve.py
"""

import math
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detkit import recipe
from detkit.models import Classifier
from detkit.ops.targets import pack_targets
from detkit.types import ImageLabels, Target, Targets

pytestmark = pytest.mark.kernels
GOLDEN = Path(__file__).parent / "golden"
RECIPES = {
    "yolo_csp_n": [],
    "yolox_nano": [],
    "rtdetr_shufflenet": ["model.head.num_queries=30"],
    "rtdetrv2_r18": ["model.head.num_queries=30", "model.head.sampling=discrete"],
    "classify_csp": ["model.head.dropout=0.0"],  # the numbers of dropout are the library's
}


def fill(model: nn.Module) -> None:
    """Weights that depend on their name and shape alone, not on the order in which parts are built."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 or len(parameter.unique()) > 1:  # what stays: ones, zeros and priors
                generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
                noise = torch.rand(parameter.shape, generator=generator, dtype=torch.float64) - 0.5
                parameter.copy_(noise * math.sqrt(24 / max(2, parameter[0].numel())))


def batch(step: int) -> tuple[Tensor, Targets]:
    """Two images of bright boxes on a striped ground; the second has no object in every third step."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    stripes = torch.stack([7 * x + 16 * step, 5 * y, 3 * (x + y)]) % 64
    images = (stripes - 32).abs().double().repeat(2, 1, 1, 1) / 64 + 0.25
    targets = []
    for index in range(2):
        left, top = 4.0 + 3 * (step % 5), 6.0 + 5 * index
        boxes = torch.tensor([[left, top, left + 24, top + 30], [30, 28, 60, 50]], dtype=torch.float64)
        labels = torch.tensor([step % 3, 2])
        if index == 1 and step % 3 == 0:
            boxes, labels = boxes[:0], labels[:0]
        for (x1, y1, x2, y2), label in zip(boxes.int().tolist(), labels.tolist(), strict=True):
            images[index, label, y1:y2, x1:x2] = 0.95
        targets.append(Target(boxes, labels, boxes.new_zeros(0, 4), index, (64, 64)))
    return images, pack_targets(targets)


def train_ten_steps(name: str) -> list[str]:
    config = recipe.load([f"recipe={name}", *RECIPES[name]]).config
    config["model"]["head"]["num_classes"] = 3
    model, loss = recipe.instantiate(config["model"]).double(), recipe.instantiate(config["loss"])
    fill(model)
    torch.manual_seed(0)  # of noisy queries
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    lines = []
    for step in range(10):
        images, targets = batch(step)
        if isinstance(model, Classifier):
            targets = ImageLabels(torch.tensor([step % 3, (step + 1) % 3]), np.arange(2))
        terms = loss(model(images, targets) if model.takes_targets else model(images), targets)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        lines.append(" ".join(f"{term}={value.item():.12g}" for term, value in terms.items()))
    return lines


def numbers(lines: list[str]) -> Tensor:
    return torch.tensor([[float(pair.split("=")[1]) for pair in line.split()] for line in lines], dtype=torch.float64)


@pytest.mark.parametrize("name", RECIPES)
def test_first_losses(name: str) -> None:
    path, lines = GOLDEN / f"{name}_cpu.txt", train_ten_steps(name)
    if os.environ.get("DETKIT_WRITE_GOLDEN"):
        path.write_text("\n".join(lines) + "\n")
    expected = path.read_text().splitlines()
    assert [line.split("=")[0] for line in lines] == [line.split("=")[0] for line in expected]
    torch.testing.assert_close(numbers(lines), numbers(expected), rtol=1e-9, atol=1e-9)
