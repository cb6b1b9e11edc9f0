"""The program of resume_steps.py at a few of its moments, and that it sees what differs."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.training import train
from tests.helpers.toy import toy_parts
from tests.reliability.left_behind import differences, left_by
from tests.reliability.resume_steps import resume_all


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "steps", "workers"),
    [
        ("plain", {9}, (2,)),  # within an epoch, by other workers than before
        pytest.param("plain", {18}, (2,), marks=pytest.mark.long),  # around the end of an epoch
        pytest.param("accumulated", {3}, (0,), marks=pytest.mark.long),
        pytest.param("validated within epochs", {8}, (0,), marks=pytest.mark.long),
        # after the last save, before the detector was written
        pytest.param("not validated", {30}, (0,), marks=pytest.mark.long),
    ],
)
def test_resumed_equals_whole(tmp_path: Path, variant: str, steps: set[int], workers: tuple[int, ...]) -> None:
    results = list(resume_all(tmp_path, variant, steps=steps, workers=workers))
    assert {result.step for result in results} == steps and {result.workers for result in results} == set(workers)
    assert [result for result in results if result.differences] == []


def test_a_run_with_another_seed_is_another_run(tmp_path: Path) -> None:
    runs = [train(toy_parts(tmp_path / name, epochs=1)).folder for name in ("a", "b")]
    first, second = map(left_by, runs)
    assert differences(first, second) == []
    other = train(toy_parts(tmp_path / "c", epochs=1, seed=1)).folder  # other dropout
    places = {place.partition(".")[0] for place in differences(first, left_by(other))}
    assert places >= {"weights", "ema", "optimizer", "metrics", "detector", "best", "about"}


@pytest.mark.parametrize(
    ("a", "b", "places"),
    [
        ([1, (2.0, "t")], [1, (2.0, "t")], []),
        ([1, 2], [1, 3], ["x.1: 2, 3"]),
        ({"a": 1}, {"b": 1}, ["x.a: in one only", "x.b: in one only"]),
        (1, 1.0, ["x: int, float"]),
        ([1], [1, 2], ["x: 1 entries, 2 entries"]),
        (math.nan, math.nan, []),
        (torch.zeros(2), -torch.zeros(2), ["x: float32 [2], float32 [2]"]),  # equal, yet not the same bits
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64), ["x: float32 [2], float64 [2]"]),
        (torch.zeros(2), torch.zeros(1, 2), ["x: float32 [2], float32 [1, 2]"]),
    ],
)
def test_differences_are_named(a: Any, b: Any, places: list[str]) -> None:
    assert differences({"x": a}, {"x": b}) == places
