"""Task-aligned assignment against a reference in loops, and its behaviour at the edges."""

import pytest
import torch
from torch import Tensor

from detkit.assign import TaskAlignedAssigner
from detkit.assign.assignment import Assignment
from detkit.ops.points import anchor_points
from tests.helpers.targets import packed

POINTS, STRIDES = anchor_points([(8, 8), (4, 4), (2, 2)], [8, 16, 32])


def slow_reference(
    scores: Tensor, boxes: Tensor, labels: list[int], truths: Tensor, top_k: int, alpha: float, beta: float
) -> dict[int, tuple[int, float]]:
    """One image, one pair at a time: {point: (row of the ground truth, quality)}."""
    chosen: dict[int, dict[int, tuple[float, float]]] = {}  # ground truth -> point -> (alignment, iou)
    for row, truth in enumerate(truths.tolist()):
        pairs = {}
        for point, ((x, y), stride) in enumerate(zip(POINTS.tolist(), STRIDES.tolist(), strict=True)):
            centre_x, centre_y = (truth[0] + truth[2]) / 2, (truth[1] + truth[3]) / 2
            half_w, half_h = max((truth[2] - truth[0]) / 2, stride), max((truth[3] - truth[1]) / 2, stride)
            if abs(x - centre_x) < half_w and abs(y - centre_y) < half_h:
                iou = slow_iou(boxes[point].tolist(), truth)
                pairs[point] = (scores[point, labels[row]].item() ** alpha * iou**beta, iou)
        best = sorted((p for p in pairs if pairs[p][0] > 0), key=lambda point: -pairs[point][0])[:top_k]
        chosen[row] = {point: pairs[point] for point in best}
    owner = {}
    for point in {p for pairs in chosen.values() for p in pairs}:
        owner[point] = max((row for row in chosen if point in chosen[row]), key=lambda row: chosen[row][point][1])
    result = {}
    for row, pairs in chosen.items():
        own = {point: pair for point, pair in pairs.items() if owner[point] == row}
        for point, (alignment, _) in own.items():
            best_alignment = max(pair[0] for pair in own.values())
            result[point] = (row, alignment / max(best_alignment, 1e-9) * max(pair[1] for pair in own.values()))
    return result


def slow_iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0) * max(height, 0)
    return overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap)


def random_image(seed: int, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    scores = torch.rand(len(POINTS), 3, generator=rng)
    size = torch.rand(len(POINTS), 4, generator=rng) * 20 + 2
    boxes = torch.cat((POINTS - size[:, :2], POINTS + size[:, 2:]), dim=1)
    corners = torch.rand(count, 2, generator=rng) * 50
    truths = torch.cat((corners, corners + torch.rand(count, 2, generator=rng) * 30 + 1), dim=1)
    return scores, boxes, torch.randint(0, 3, (count,), generator=rng), truths


@pytest.mark.parametrize("repeats", [2, 3])
def test_of_equal_ground_truths_the_first_gets_all_points(repeats: int) -> None:
    """The same box under several labels: index and quality are of one and the same object."""
    scores, boxes, labels, truths = random_image(0, 1)

    def assigned(gt_labels: Tensor) -> Assignment:
        targets = packed([gt_labels.tolist()], [truths.tolist() * len(gt_labels)])
        return TaskAlignedAssigner()(scores[None], boxes[None], POINTS, STRIDES, targets)

    alone, together = assigned(labels), assigned((labels + torch.arange(repeats)) % 3)
    own = alone.positive_BA
    assert own.any() and together.positive_BA[own].all()
    assert together.gt_index_BA[own].eq(0).all()
    torch.testing.assert_close(together.quality_BA[own], alone.quality_BA[own])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("top_k", [1, 10])
def test_agrees_with_slow_reference_over_a_batch(seed: int, top_k: int) -> None:
    """Three images with 6, 0 and 2 objects in one batch."""
    counts = (6, 0, 2)
    images = [random_image(seed * 10 + i, count) for i, count in enumerate(counts)]
    targets = packed([x[2].tolist() for x in images], [x[3].tolist() for x in images])
    scores, boxes = torch.stack([x[0] for x in images]), torch.stack([x[1] for x in images])
    result = TaskAlignedAssigner(top_k)(scores, boxes, POINTS, STRIDES, targets)
    for i, (first, image) in enumerate(zip((0, 6, 6), images, strict=True)):
        image_scores, image_boxes, image_labels, image_truths = image
        expected = slow_reference(image_scores, image_boxes, image_labels.tolist(), image_truths, top_k, 0.5, 6.0)
        assert result.positive_BA[i].nonzero().flatten().tolist() == sorted(expected)
        for point, (row, quality) in expected.items():
            assert result.gt_index_BA[i, point] == first + row
            assert result.quality_BA[i, point].item() == pytest.approx(quality, rel=1e-4, abs=1e-6)
        assert not result.quality_BA[i][~result.positive_BA[i]].any()


def assign_one(truths: list[list[float]]) -> Tensor:
    scores, boxes, _, _ = random_image(0, 1)
    targets = packed([[0] * len(truths)], [truths])
    return TaskAlignedAssigner()(scores[None], boxes[None], POINTS, STRIDES, targets).positive_BA[0]


def test_a_box_of_one_pixel_still_gets_points() -> None:
    assert assign_one([[20.0, 20.0, 21.0, 21.0]]).any()


def test_a_box_without_area_breaks_nothing() -> None:
    assert assign_one([[20.0, 20.0, 20.0, 20.0], [4.0, 4.0, 30.0, 30.0]]).any()


def test_a_box_outside_of_the_image_gets_none() -> None:
    assert not assign_one([[500.0, 500.0, 520.0, 520.0]]).any()


@pytest.mark.parametrize(
    ("arguments", "message"), [({"top_k": 0}, "top_k must be at least 1; got 0"), ({"beta": -1.0}, "beta=-1.0")]
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskAlignedAssigner(**arguments)
