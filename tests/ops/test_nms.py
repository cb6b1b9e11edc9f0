"""Suppression works within a class and leaves other classes alone."""

import torch

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
