"""Decoding of queries against transformers' and a sort by hand, and its limits."""

from typing import Any

import pytest
import torch
from transformers import RTDetrImageProcessor
from transformers.models.rt_detr.modeling_rt_detr import RTDetrObjectDetectionOutput

from detkit.decode import DETRDecode
from detkit.types import DETRPredictions, QueryOutput
from tests.helpers.detr_batches import IMAGE_HW, NUM_CLASSES, random_predictions

QUERIES = 12


def predictions(seed: int = 0, images: int = 3, dtype: torch.dtype = torch.float32) -> DETRPredictions:
    rng = torch.Generator().manual_seed(seed)
    return random_predictions([1] * images, rng, dtype, layers=2, queries=QUERIES)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.99])
def test_agrees_with_transformers(threshold: float) -> None:
    given = predictions()
    last: Any = [values.detach() for values in given.layers[-1]]
    answer = RTDetrObjectDetectionOutput(logits=last[0], pred_boxes=last[1])
    expected = RTDetrImageProcessor().post_process_object_detection(answer, threshold, [IMAGE_HW] * 3)
    found = DETRDecode(QUERIES, threshold)(given)
    assert threshold or all(len(one.scores) == QUERIES for one in found)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours._asdict(), theirs, rtol=1e-6, atol=1e-5)


def test_by_hand() -> None:
    """A query may speak for several classes; the last layer alone is asked; boxes are pixels, not clipped."""
    other = QueryOutput(torch.full((1, 2, 3), 9.0), torch.full((1, 2, 4), 0.5))
    scores = torch.tensor([[[0.1, 0.8, 0.3], [0.9, 0.2, 0.7]]])
    boxes = torch.tensor([[[0.5, 0.5, 1.0, 0.5], [0.1, 0.2, 0.4, 0.1]]])
    (found,) = DETRDecode(max_detections=4)(
        DETRPredictions([other, QueryOutput(scores.logit(), boxes)], other, None, (100, 200))
    )
    first, second = [0.0, 25.0, 200.0, 75.0], [-20.0, 15.0, 60.0, 25.0]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.8, 0.7, 0.3]))
    assert found.labels.tolist() == [0, 1, 2, 2]
    torch.testing.assert_close(found.boxes, torch.tensor([second, first, second, first]))


def test_never_more_than_there_are() -> None:
    for found in DETRDecode(max_detections=1000)(predictions()):
        assert len(found.scores) == QUERIES * NUM_CLASSES
        assert (found.scores.diff() <= 0).all()


def test_threshold_is_kept_and_nothing_may_be_found() -> None:
    answer = QueryOutput(torch.zeros(1, 2, 1), torch.full((1, 2, 4), 0.5))
    given = DETRPredictions([answer], answer, None, IMAGE_HW)
    assert len(DETRDecode(score_threshold=0.5)(given)[0].scores) == 2
    (found,) = DETRDecode(score_threshold=0.51)(given)
    assert found.boxes.shape == (0, 4) and found.labels.dtype == torch.int64


def test_what_is_nan_is_not_found() -> None:
    """Evaluation takes finite scores alone."""
    answer = QueryOutput(torch.tensor([[[torch.nan], [0.0]]]), torch.full((1, 2, 4), 0.5))
    (found,) = DETRDecode()(DETRPredictions([answer], answer, None, IMAGE_HW))
    assert found.scores.tolist() == [0.5]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_detections_are_exact_in_every_precision(dtype: torch.dtype) -> None:
    given = predictions(dtype=dtype)
    answer = QueryOutput(*(values.detach().double() for values in given.layers[-1]))
    for found, exact in zip(DETRDecode(5)(given), DETRDecode(5)(given._replace(layers=[answer])), strict=True):
        assert not found.boxes.requires_grad
        torch.testing.assert_close(found.boxes.double(), exact.boxes, rtol=1e-6, atol=1e-4)
        torch.testing.assert_close(found.scores.double(), exact.scores, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_detections": 0}, "max_detections must be at least 1; got 0"),
        ({"score_threshold": -0.1}, r"score_threshold must lie in \[0, 1\]; got -0.1"),
        ({"score_threshold": float("nan")}, "got nan"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DETRDecode(**arguments)


@pytest.mark.parametrize("max_detections", [5, 300])
def test_a_higher_threshold_gives_the_best_of_a_lower_one(max_detections: int) -> None:
    given, low = predictions(), DETRDecode(max_detections)
    for threshold in (0.0, 0.3, 0.6, 1.0):
        high = low.with_threshold(threshold)
        assert low.score_threshold == 0
        for found, expected in zip(high(given), low(given), strict=True):
            for ours, theirs in zip(found, expected, strict=True):
                assert torch.equal(ours, theirs[expected.scores >= threshold])
