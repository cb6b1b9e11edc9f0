"""What counts as the same detector: AP apart in either direction, of int8 the AP that it lost."""

import pytest
import torch
from torch import nn

from detkit.export.certificate import Check
from detkit.export.images import CheckImages
from detkit.export.options import Options, Precision
from detkit.export.steps import Steps
from detkit.inference.predictor import Predictor
from detkit.types import Detections

FOUND = Detections(torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.tensor([0.9]), torch.tensor([0]))


def check_of(before: float, after: float) -> tuple[Check, Predictor]:
    """A detector and an export that find the same; the APs are made up."""
    numbers = iter([before, after])
    images = CheckImages(
        "two images",
        lambda: iter([(torch.zeros(2, 3, 32, 32), [])]),
        1,
        None,
        lambda *_: {"AP": next(numbers), "AP50": 0.5},
    )
    predictor = Predictor(nn.Identity(), lambda images: [FOUND] * len(images), ["cat"], (32, 32), "letterbox")
    return Check(predictor, images, Steps()), predictor


@pytest.mark.parametrize(
    ("precision", "before", "after", "points", "passed"),
    [
        ("fp32", 0.5, 0.502, 0.2, False),
        ("fp32", 0.5, 0.498, 0.2, False),
        ("fp32", 0.5, 0.5005, 0.05, True),
        ("int8", 0.5, 0.52, 0.0, True),
        ("int8", 0.5, 0.495, 0.5, True),
        ("int8", 0.5, 0.48, 2.0, False),
    ],
)
def test_apart_or_lost(precision: Precision, before: float, after: float, points: float, passed: bool) -> None:
    check, exported = check_of(before, after)
    made = check.certify(exported, Options("run", precision=precision), {"precision": precision})
    assert made.difference_points == pytest.approx(points)
    assert (made.passed, made.noted["passed"]) == (passed, passed)


def test_a_gain_is_no_loss() -> None:
    check, exported = check_of(0.5, 0.52)
    measured = check.measure("export", exported)
    assert (measured.points, measured.lost_points) == (pytest.approx(2), 0)
