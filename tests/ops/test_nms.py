"""Suppression works within a class and leaves other classes alone."""

import pytest
import torch

from detkit.ops import nms
from detkit.ops.nms import batched_nms

BOXES = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [50.0, 50.0, 60.0, 60.0]])
SCORES = torch.tensor([0.5, 0.9, 0.7])


def test_the_better_box_of_a_class_stays() -> None:
    assert batched_nms(BOXES, SCORES, torch.tensor([1, 1, 1]), 0.5).tolist() == [1, 2]


def test_other_classes_are_left_alone() -> None:
    assert batched_nms(BOXES, SCORES, torch.tensor([0, 1, 1]), 0.5).tolist() == [1, 2, 0]


def test_threshold_is_exclusive() -> None:
    """IoU of the first two is 0.9 exactly: a threshold of 0.95 keeps both."""
    assert batched_nms(BOXES, SCORES, torch.tensor([1, 1, 1]), 0.95).tolist() == [1, 2, 0]


def test_no_boxes() -> None:
    assert batched_nms(BOXES[:0], SCORES[:0], torch.zeros(0, dtype=torch.int64), 0.5).tolist() == []


def test_equal_scores_rank_by_row() -> None:
    boxes = torch.arange(2000.0)[:, None] * 20 + torch.tensor([0.0, 0.0, 10.0, 10.0])
    for count in (100, 2000):  # torchvision takes another way from 1001 boxes on
        kept = batched_nms(boxes[:count], torch.full((count,), 0.5), torch.arange(count) % 3, 0.5)
        assert kept.tolist() == list(range(count))


def test_a_device_without_float64_leaves_it_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once; on other devices nothing is said. There is no such device here: what matters is where it computes."""
    moved = []
    monkeypatch.setattr(nms, "_has_float64", lambda device: bool(moved.append(device)))
    assert batched_nms(BOXES, SCORES, torch.tensor([1, 1, 1]), 0.5).tolist() == [1, 2]
    assert moved == [torch.device("cpu")]
    monkeypatch.undo()
    nms._has_float64.cache_clear()
    assert [nms._has_float64(torch.device(name)) for name in ("mps", "mps", "cpu", "cuda")] == [False] * 2 + [True] * 2
    assert caplog.messages == ["mps has no float64: overlapping boxes are suppressed on the CPU"]


@pytest.mark.parametrize("seed", range(5))
def test_the_worst_boxes_change_nothing_for_the_best(seed: int) -> None:
    """Ten boxes around each object, many of them about as far apart as the threshold says; scores repeat."""
    rng = torch.Generator().manual_seed(seed)
    centres, halves = torch.rand(300, 2, generator=rng) * 600, torch.rand(300, 2, generator=rng) * 20 + 4
    boxes = torch.cat((centres - halves, centres + halves), dim=1).repeat_interleave(10, dim=0)
    boxes += torch.randn(boxes.shape, generator=rng) * 2
    labels = torch.randint(0, 80, (300,), generator=rng).repeat_interleave(10)
    scores = (torch.rand(3000, generator=rng) * 1000).round() / 1000
    all_kept = batched_nms(boxes, scores, labels, 0.7)
    for least in (0.1, 0.5, 0.7, 0.9):
        best = (scores >= least).nonzero().squeeze(1)
        kept = best[batched_nms(boxes[best], scores[best], labels[best], 0.7)]
        assert kept.tolist() == all_kept[scores[all_kept] >= least].tolist()
