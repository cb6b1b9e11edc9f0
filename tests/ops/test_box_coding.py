"""Anchor points, distances and both box codings by hand and as inverses."""

import math

import pytest
import torch

from detkit.ops.box_coding import decode_boxes, encode_offsets
from detkit.ops.distances import boxes_to_distances, distances_to_boxes, expected_distances
from detkit.ops.points import anchor_points
from detkit.types import BoxCoding

POINTS, STRIDES = anchor_points([(2, 3), (1, 1)], [8, 16])
BOXES = torch.tensor([[1.0, 2.0, 20.0, 30.0]]).expand(7, 4)


def test_anchor_points_by_hand() -> None:
    """Centres of the cells, row by row, then the next level."""
    assert POINTS.tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12], [8, 8]]
    assert STRIDES.tolist() == [8] * 6 + [16]


def test_anchor_points_need_a_stride_for_each_map() -> None:
    with pytest.raises(ValueError, match="got 2 maps and 1 strides"):
        anchor_points([(2, 3), (1, 1)], [8])


def test_distances_by_hand() -> None:
    distances = boxes_to_distances(BOXES, POINTS, STRIDES)
    assert distances[0].tolist() == [3 / 8, 2 / 8, 16 / 8, 26 / 8]
    torch.testing.assert_close(distances_to_boxes(distances, POINTS, STRIDES), BOXES)


def test_expected_distance_of_equal_logits_is_the_middle() -> None:
    torch.testing.assert_close(expected_distances(torch.zeros(5, 4 * 16)), torch.full((5, 4), 7.5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_boxes_are_not_rounded_under_autocast(dtype: torch.dtype) -> None:
    """Half an image of 640 pixels in bfloat16 is rounded to two pixels."""
    logits = torch.randn(7, 4 * 16, generator=torch.Generator().manual_seed(0)) * 3
    bins = torch.arange(16, dtype=torch.float64)
    expected = (logits.double().unflatten(1, (4, 16)).softmax(-1) * bins).sum(-1)
    with torch.autocast("cpu", dtype):
        distances = expected_distances(logits)
    torch.testing.assert_close(distances, expected.float(), rtol=1e-6, atol=0)


def test_distribution_decodes_to_the_bin_with_all_the_weight() -> None:
    logits = torch.full((7, 4, 8), -1e4)
    for side, distance in enumerate((1, 2, 3, 4)):
        logits[:, side, distance] = 0.0
    boxes = decode_boxes(logits.flatten(1), POINTS, STRIDES, "distances")
    assert boxes[0].tolist() == [4 - 8, 4 - 16, 4 + 24, 4 + 32]
    assert boxes[6].tolist() == [8 - 16, 8 - 32, 8 + 48, 8 + 64]


def test_one_bin_is_the_logarithm_of_the_distance() -> None:
    distances = torch.rand(7, 4) * 5 + 0.1
    boxes = decode_boxes(distances.log(), POINTS, STRIDES, "distances")
    torch.testing.assert_close(boxes_to_distances(boxes, POINTS, STRIDES), distances)


def test_offsets_by_hand() -> None:
    """The first cell of stride 8: centre at 0.5 cells from its corner, 2 x e cells large."""
    boxes = decode_boxes(torch.tensor([[0.5, 0.5, math.log(2), 1.0]]), POINTS[:1], STRIDES[:1], "offsets")
    torch.testing.assert_close(boxes[0], torch.tensor([4 - 8, 4 - 4 * math.e, 4 + 8, 4 + 4 * math.e]))


def test_offsets_are_inverse() -> None:
    parameters = encode_offsets(BOXES, POINTS, STRIDES)
    torch.testing.assert_close(decode_boxes(parameters, POINTS, STRIDES, "offsets"), BOXES, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("coding", ["distances", "offsets"])
def test_wild_parameters_stay_finite(coding: BoxCoding) -> None:
    parameters = torch.full((7, 4), 1e4, dtype=torch.float16)
    assert decode_boxes(parameters, POINTS, STRIDES, coding).isfinite().all()


def test_unknown_coding() -> None:
    with pytest.raises(ValueError, match="distances or offsets; got 'corners'"):
        decode_boxes(torch.zeros(7, 4), POINTS, STRIDES, "corners")  # type: ignore[arg-type]
