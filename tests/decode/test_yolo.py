"""Decoding against predictions made from known boxes, and its limits."""

import pytest
import torch
from torch import Tensor

from detkit.decode import YOLODecode
from detkit.ops.box_coding import encode_offsets
from detkit.ops.points import anchor_points
from detkit.types import YOLOPredictions

POINTS, STRIDES = anchor_points([(4, 4)], [8])
BOXES = torch.tensor([[1.0, 1.0, 20.0, 20.0], [1.0, 1.0, 20.0, 21.0], [10.0, 4.0, 30.0, 28.0]])


def predictions(scores: Tensor, objectness: Tensor | None = None) -> YOLOPredictions:
    """The first points predict BOXES exactly, with these scores; all others score nothing."""
    count, classes = scores.shape
    logits = torch.full((1, len(POINTS), classes), -50.0)
    logits[0, :count] = torch.logit(scores, 1e-9)
    boxes = torch.zeros(1, len(POINTS), 4)
    boxes[0, :count] = encode_offsets(BOXES[:count], POINTS[:count], STRIDES[:count])
    if objectness is not None:
        objectness = torch.cat((torch.logit(objectness), torch.zeros(len(POINTS) - count)))[None]
    return YOLOPredictions(logits, boxes, objectness, POINTS, STRIDES, "offsets")


def test_suppresses_within_a_class_only() -> None:
    (found,) = YOLODecode(iou_threshold=0.7)(predictions(torch.tensor([[0.9, 0.0], [0.8, 0.0], [0.0, 0.7]])))
    assert found.labels.tolist() == [0, 1]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.7]))
    torch.testing.assert_close(found.boxes, BOXES[[0, 2]], rtol=1e-5, atol=1e-4)


def test_a_point_may_speak_for_several_classes_or_only_its_best() -> None:
    scores = torch.tensor([[0.9, 0.6]])
    assert YOLODecode()(predictions(scores))[0].labels.tolist() == [0, 1]
    assert YOLODecode(multi_label=False)(predictions(scores))[0].labels.tolist() == [0]


def test_objectness_multiplies_the_score() -> None:
    (found,) = YOLODecode(score_threshold=0.1)(predictions(torch.tensor([[0.8], [0.5]]), torch.tensor([0.5, 0.1])))
    torch.testing.assert_close(found.scores, torch.tensor([0.4]))


def test_limits_keep_the_best() -> None:
    scores = torch.tensor([[0.5, 0.0], [0.0, 0.9], [0.7, 0.0]])
    assert YOLODecode(max_detections=2)(predictions(scores))[0].scores.tolist() == pytest.approx([0.9, 0.7])
    assert YOLODecode(max_candidates=1)(predictions(scores))[0].scores.tolist() == pytest.approx([0.9])


def test_nothing_found() -> None:
    (found,) = YOLODecode(score_threshold=0.5)(predictions(torch.tensor([[0.1]])))
    assert found.boxes.shape == (0, 4) and found.labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iou_threshold": 1.5}, "got score_threshold=0.001, iou_threshold=1.5"),
        ({"max_detections": 0}, "max_detections=0"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        YOLODecode(**arguments)


@pytest.mark.parametrize("limits", [{}, {"max_detections": 9}, {"max_candidates": 300}, {"multi_label": False}])
@pytest.mark.parametrize("classes", [1, 80])
def test_a_higher_threshold_gives_the_best_of_a_lower_one(limits: dict, classes: int) -> None:
    """To the last bit; three images with more candidates than torchvision moves apart, and boxes in heaps."""
    points, strides = anchor_points([(20, 20), (10, 10)], [8, 16])
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(3, len(points), classes, generator=rng, dtype=torch.float64).float() * 2 - 1
    boxes = torch.randn(3, len(points), 4, generator=rng) * 0.3 + torch.tensor([0.0, 0.0, 1.0, 1.0])
    given = YOLOPredictions(logits, boxes, None, points, strides, "offsets")
    low = YOLODecode(**limits)
    for threshold in (0.001, 0.25, 0.5, 0.8, 1.0):
        high = low.with_threshold(threshold)
        assert low.score_threshold == 0.001
        for found, expected in zip(high(given), low(given), strict=True):
            enough = expected.scores >= threshold
            assert threshold > 0.8 or enough.any()
            for ours, theirs in zip(found, expected, strict=True):
                assert torch.equal(ours, theirs[enough])
