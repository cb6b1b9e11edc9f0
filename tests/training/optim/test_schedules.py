"""Learning rates against closed forms."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from detkit.training import WarmupCosine, WarmupFlatCosine
from detkit.training.optim.parameter_groups import parameter_groups, scale_learning_rates
from detkit.training.optim.schedules import continue_at_step
from tests.training.optim.staged import staged


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
    with pytest.raises(ValueError, match=r"got start \d+ and end \d+ of 100 steps"):
        rates(schedule, 1, steps_per_epoch=20, total_steps=100, warmup_epochs=1, **settings)


def test_a_short_run_still_rises_falls_and_rests() -> None:
    """Warm-up and rest of a long recipe take no more than half and a quarter of a run of two epochs."""
    found = rates(WarmupCosine, 100, steps_per_epoch=50, total_steps=100, warmup_epochs=5, last_epochs=15)
    assert found.index(max(found)) in (49, 50)
    assert found[74] > found[75] == found[99] == pytest.approx(0.01 * max(found))


@pytest.mark.parametrize("schedule", [WarmupCosine, WarmupFlatCosine])
@pytest.mark.parametrize("step", [0, 1, 7, 23])
def test_goes_on_with_other_groups(schedule: Callable[..., LRScheduler], step: int) -> None:
    """As a schedule that had these groups from the start, to the last bit."""
    settings = {"steps_per_epoch": 10, "total_steps": 50, "warmup_epochs": 1}

    def make(backbone_trains: bool) -> tuple[torch.optim.Optimizer, LRScheduler]:
        model = staged()
        model.get_submodule("backbone").requires_grad_(backbone_trains)
        optimizer = scale_learning_rates(torch.optim.SGD(parameter_groups(model, 0.3, 0.9), lr=0.1))
        return optimizer, schedule(optimizer, **settings)

    def move(pair: tuple[torch.optim.Optimizer, LRScheduler], steps: int) -> None:
        for _ in range(steps):
            pair[0].step()
            pair[1].step()

    frozen, whole, fresh = make(backbone_trains=False), make(backbone_trains=True), make(backbone_trains=True)
    move(frozen, step)
    move(whole, step)
    continue_at_step(fresh[1], frozen[1])
    for _ in range(10):
        rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in (fresh[0], whole[0])]
        assert rates[0] == rates[1] and fresh[1].get_last_lr() == whole[1].get_last_lr()
        move(fresh, 1)
        move(whole, 1)
