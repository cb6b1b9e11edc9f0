"""Matching of detections, by examples that are counted by hand."""

import pytest
import torch

from detkit.exporting.verify.comparison import Comparison, Difference
from detkit.exporting.verify.latency import latency_of
from detkit.types import Detections


def found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """(x1, y1, x2, y2, score, label)."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].long())


def difference(ours: Detections, theirs: Detections) -> Difference:
    comparison = Comparison()
    comparison.add(ours, theirs)
    return comparison.difference()


def test_differences_are_those_of_partners() -> None:
    """Whatever their order; the first is 2 pixels off at one side, the second 0.1 in its score."""
    ours = found((0, 0, 10, 10, 0.9, 0), (50, 50, 80, 90, 0.5, 1))
    theirs = found((50, 50, 80, 90, 0.6, 1), (0, 0, 12, 10, 0.9, 0))
    loss = (1 - 10 / 12) / 2  # the one is as good as ever
    assert difference(ours, theirs) == pytest.approx(Difference(2, 0, 2.0, 1.0, 0.1, 0.05, loss), abs=1e-6)


def test_another_class_is_no_partner() -> None:
    result = difference(found((0, 0, 10, 10, 0.9, 0)), found((0, 0, 10, 10, 0.9, 1)))
    assert (result.matched, result.unmatched, result.unmatched_share) == (0, 2, 1.0)


def test_partner_may_lie_below_the_least_score() -> None:
    """0.0501 here is 0.0499 there: no detection is missing. What is low in both does not count."""
    ours = found((0, 0, 10, 10, 0.0501, 0), (50, 0, 60, 10, 0.01, 0))
    theirs = found((0, 0, 10, 10, 0.0499, 0))
    assert difference(ours, theirs)[:2] == (1, 0)
    assert difference(theirs, ours)[:2] == (1, 0)


def test_same_box_twice_goes_by_score() -> None:
    """Two queries at one place, in another order."""
    ours = found((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.3, 0))
    theirs = found((0, 0, 10, 10, 0.3, 0), (0, 0, 10, 10, 0.9, 0))
    assert difference(ours, theirs) == Difference(2, 0, 0, 0, 0, 0, 0)


def test_box_without_an_area_is_its_own_partner() -> None:
    assert difference(found((3, 3, 3, 3, 0.9, 0)), found((3, 3, 3, 3, 0.9, 0)))[:2] == (1, 0)


def test_nothing_at_all() -> None:
    assert difference(found(), found()) == Difference(0, 0, 0, 0, 0, 0, 0)
    assert difference(found(), found()).unmatched_share == 0


def test_latency_by_hand() -> None:
    """Medians and 95 of 100 of 1..100 ms and 2..200 ms; the batch has 4 images."""
    latency = latency_of([(n / 1000, 2 * n / 1000) for n in range(1, 101)], 4)
    assert latency[:3] == pytest.approx((50.5, 101, 151.5))
    assert latency[3:6] == pytest.approx((95.05, 190.1, 285.15))
    assert latency.image_median_ms == pytest.approx(151.5 / 4)
    assert latency.rounds == 100
