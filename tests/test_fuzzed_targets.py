"""Training on every kind of box that a data set may hold gives no error, and only finite numbers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from detkit.assign import HungarianAssigner
from detkit.decode import DETRDecode
from detkit.losses import DETRLoss
from detkit.ops.targets import pack_targets
from detkit.types import Target
from tests.helpers.small_rtdetr import small_rtdetr

CLASSES = 5
SIZES_HW = [(64, 64), (32, 96), (96, 32)]
KINDS: dict[str, Callable[[float, float, torch.Generator], Tensor]] = {
    "none": lambda _height, _width, _rng: torch.zeros(0, 4),
    "one": lambda height, width, rng: boxes(1, height, width, rng),
    "some": lambda height, width, rng: boxes(7, height, width, rng),
    "many": lambda height, width, rng: boxes(300, height, width, rng),
    "no_area": lambda height, width, rng: boxes(3, height, width, rng)[:, [0, 1, 0, 1]],
    "no_width": lambda height, width, rng: boxes(3, height, width, rng)[:, [0, 1, 0, 3]],
    "whole_image": lambda height, width, _rng: torch.tensor([[0.0, 0.0, width, height]]).repeat(2, 1),
    "larger_than_the_image": lambda height, width, _rng: torch.tensor([[-50.0, -9.0, 3 * width, 2 * height]]),
    "partly_outside": lambda height, width, rng: (
        boxes(4, height, width, rng) + torch.tensor([width / 2, -height / 2] * 2)
    ),
    "outside": lambda height, width, rng: boxes(2, height, width, rng) + 1000,
    "all_the_same": lambda height, width, rng: boxes(1, height, width, rng).repeat(40, 1),
    "specks": lambda height, width, rng: (
        boxes(5, height, width, rng)[:, [0, 1, 0, 1]] + torch.tensor([0, 0, 1e-3, 1e-3])
    ),
}
OFTEN = torch.tensor([0.1 if name == "many" else 1.0 for name in KINDS])  # these are slow


def boxes(count: int, height: float, width: float, rng: torch.Generator) -> Tensor:
    """Anywhere in the image."""
    corners = torch.rand(2, count, 2, generator=rng) * torch.tensor([width, height])
    return torch.cat((corners.amin(0), corners.amax(0)), dim=1)


def random_target(size_hw: tuple[int, int], rng: torch.Generator) -> Target:
    kind = list(KINDS.values())[int(OFTEN.multinomial(1, generator=rng))]
    found = kind(*size_hw, rng)
    labels = torch.randint(CLASSES, (len(found),), generator=rng)
    crowds = boxes(int(torch.randint(3, (), generator=rng)), *size_hw, rng)
    return Target(found, labels, crowds, 0, size_hw)


@pytest.mark.slow
def test_rtdetr_trains_on_anything() -> None:
    rng = torch.Generator().manual_seed(0)
    model = small_rtdetr(num_classes=CLASSES, num_queries=20, num_denoising=20)
    loss, decode = DETRLoss(HungarianAssigner()), DETRDecode()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(120):
        size_hw = SIZES_HW[step % 3]
        images = torch.rand(2, 3, *size_hw, generator=rng)
        targets = pack_targets([random_target(size_hw, rng) for _ in range(2)])
        terms = loss(model(images, targets), targets)
        assert all(value.isfinite() for value in terms.values()), (step, terms)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1, error_if_nonfinite=True)
        optimizer.step()
    with torch.no_grad():
        found = decode(model.eval()(torch.rand(2, 3, 64, 96, generator=rng)))
    for detections in found:
        assert len(detections.scores) == 20 * CLASSES
        assert all(values.isfinite().all() for values in detections)
