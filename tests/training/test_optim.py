"""Learning rates against closed forms, and which parameters decay."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from detkit.training.optim import WarmupCosine, WarmupFlatCosine, parameter_groups


def rates(make: Callable[..., LRScheduler], steps: int, **settings: Any) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = make(optimizer, **settings)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_equals_torch_after_the_warmup() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=80, eta_min=0.05)
    expected = []
    for _ in range(80):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        torchs.step()
    found = rates(WarmupCosine, 100, steps_per_epoch=10, total_steps=100, warmup_epochs=2, final_frac=0.1)
    assert found[:20] == pytest.approx([0.5 * (step + 1) / 20 for step in range(20)])
    assert found[20:] == pytest.approx(expected)


def test_yolox_form() -> None:
    """Quadratic rise, cosine, constant for the last epochs: as in YOLOX's lr_scheduler, a step later."""

    def yolox(step: int, lr: float = 0.5, end_frac: float = 0.05) -> float:
        if step <= 50:
            return lr * (step / 50) ** 2
        if step >= 1000 - 150:
            return lr * end_frac
        return lr * end_frac + 0.5 * (lr - lr * end_frac) * (1 + math.cos(math.pi * (step - 50) / (1000 - 50 - 150)))

    found = rates(
        WarmupCosine,
        1000,
        steps_per_epoch=10,
        total_steps=1000,
        warmup_epochs=5,
        final_frac=0.05,
        warmup_power=2,
        last_epochs=15,
    )
    assert found[:50] == pytest.approx([yolox(step + 1) for step in range(50)])
    assert found[50:] == pytest.approx([yolox(step) for step in range(50, 1000)])


def test_flat_then_cosine() -> None:
    found = rates(
        WarmupFlatCosine,
        200,
        steps_per_epoch=10,
        total_steps=200,
        warmup_epochs=1,
        flat_frac=0.5,
        final_frac=0.1,
        last_epochs=2,
    )
    assert found[:10] == pytest.approx([0.05 * (step + 1) for step in range(10)])
    assert found[10:101] == pytest.approx([0.5] * 91)
    assert found[140] == pytest.approx(0.05 + 0.45 / 2)  # half way down
    assert found[180:] == pytest.approx([0.05] * 20)
    assert all(a > b for a, b in pairwise(found[100:181]))


@pytest.mark.parametrize("schedule", [WarmupCosine, WarmupFlatCosine])
def test_warmup_is_at_most_half_of_the_run(schedule: Callable[..., LRScheduler]) -> None:
    found = rates(schedule, 8, steps_per_epoch=4, total_steps=8, warmup_epochs=3)
    assert found[:4] == pytest.approx([0.125, 0.25, 0.375, 0.5])
    assert found[-1] < 0.5


@pytest.mark.parametrize("schedule", [WarmupCosine, WarmupFlatCosine])
def test_resumed_is_the_same(schedule: Callable[..., LRScheduler]) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    first = schedule(optimizer, steps_per_epoch=10, total_steps=50, warmup_epochs=1)
    for _ in range(23):
        optimizer.step()
        first.step()
    other = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    second = schedule(other, steps_per_epoch=10, total_steps=50, warmup_epochs=1)
    other.load_state_dict(optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    for _ in range(20):
        assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
        for pair in ((optimizer, first), (other, second)):
            pair[0].step()
            pair[1].step()


@pytest.mark.parametrize(
    ("schedule", "settings"), [(WarmupCosine, {"last_epochs": -1}), (WarmupFlatCosine, {"flat_frac": 1.0})]
)
def test_a_fall_needs_steps(schedule: Callable[..., LRScheduler], settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"it falls from step \d+ to \d+ of 100"):
        rates(schedule, 1, steps_per_epoch=20, total_steps=100, warmup_epochs=1, **settings)


def test_a_short_run_still_rises_falls_and_rests() -> None:
    """Warm-up and rest of a long recipe take no more than half and a quarter of a run of two epochs."""
    found = rates(WarmupCosine, 100, steps_per_epoch=50, total_steps=100, warmup_epochs=5, last_epochs=15)
    assert found.index(max(found)) in (49, 50)
    assert found[74] > found[75] == found[99] == pytest.approx(0.01 * max(found))


def test_groups() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5), nn.PReLU())
    model[2].bias.requires_grad_(False)
    first, second = parameter_groups(model)
    assert {id(p) for p in first["params"]} == {id(model[0].weight), id(model[2].weight)}
    assert {id(p) for p in second["params"]} == {
        id(p) for p in (model[0].bias, model[1].weight, model[1].bias, model[3].weight)
    }
    optimizer = torch.optim.AdamW([first, second], weight_decay=0.05)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]
    assert len(parameter_groups(nn.Linear(2, 2, bias=False))) == 1
