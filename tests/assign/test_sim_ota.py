"""SimOTA against reference records, a reference in loops, and its behaviour at the edges."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detkit.assign import Assignment, SimOTAAssigner
from detkit.ops.boxes import cxcywh_to_xyxy
from detkit.ops.points import anchor_points
from tests.helpers.targets import packed

POINTS, STRIDES = anchor_points([(8, 8), (4, 4), (2, 2)], [8, 16, 32])


def slow_reference(scores: Tensor, boxes: Tensor, labels: list[int], truths: Tensor) -> dict[int, tuple[int, float]]:
    """One image, one pair at a time: {point: (row of the ground truth, IoU)}."""
    near = [[slow_is_near(point, truth) for point in range(len(POINTS))] for truth in truths.tolist()]
    candidates = [point for point in range(len(POINTS)) if any(row[point] for row in near)]
    costs: list[dict[int, float]] = []
    takers: dict[int, list[int]] = {}
    ious = []
    for row, (truth, label) in enumerate(zip(truths.tolist(), labels, strict=True)):
        iou = {point: slow_iou(boxes[point].tolist(), truth) for point in candidates}
        cost = {}
        for point in candidates:
            probs = [math.sqrt(score) for score in scores[point].tolist()]
            entropy = sum(-math.log(p if c == label else 1 - p) for c, p in enumerate(probs))
            cost[point] = entropy - 3 * math.log(iou[point] + 1e-8) + 1e6 * (not near[row][point])
        wanted = max(1, int(sum(sorted(iou.values())[-10:])))
        for point in sorted(candidates, key=cost.__getitem__)[:wanted]:
            takers.setdefault(point, []).append(row)
        costs.append(cost)
        ious.append(iou)
    owners = {
        point: rows[0] if len(rows) == 1 else min(range(len(truths)), key=lambda row: costs[row][point])
        for point, rows in takers.items()
    }
    return {point: (row, ious[row][point]) for point, row in owners.items()}


def slow_is_near(point: int, truth: list[float]) -> bool:
    x, y = POINTS[point].tolist()
    radius = 1.5 * STRIDES[point].item()
    return abs(x - (truth[0] + truth[2]) / 2) < radius and abs(y - (truth[1] + truth[3]) / 2) < radius


def slow_iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0) * max(height, 0)
    return overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap)


def random_image(seed: int, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores and boxes of all points, labels and boxes of objects that crowd a corner of 64 pixels."""
    rng = torch.Generator().manual_seed(seed)
    scores = torch.rand(len(POINTS), 3, generator=rng) * 0.98 + 0.01
    corners = torch.rand(count, 2, generator=rng) * 24
    truths = torch.cat((corners, corners + torch.rand(count, 2, generator=rng) * 30 + 8), dim=1)
    nearest = torch.cdist(POINTS, (truths[:, :2] + truths[:, 2:]) / 2).argmin(1) if count else None
    boxes = POINTS.repeat(1, 2) + torch.tensor([-12.0, -12.0, 12.0, 12.0]) if nearest is None else truths[nearest]
    boxes = boxes + torch.rand(len(POINTS), 4, generator=rng) * 6 - 3
    return scores, boxes, torch.randint(0, 3, (count,), generator=rng), truths


def assign(
    scores_BAC: Tensor, boxes_BA4: Tensor, labels: list[list[int]], truths: list[list[list[float]]]
) -> Assignment:
    return SimOTAAssigner()(scores_BAC, boxes_BA4, POINTS, STRIDES, packed(labels, truths))


def assign_one(truths: list[list[float]], labels: list[int] | None = None) -> Assignment:
    scores, boxes, _, _ = random_image(0, 1)
    return assign(scores[None], boxes[None], [labels or [0] * len(truths)], [truths])


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_slow_reference_over_a_batch(seed: int) -> None:
    """Three images with 9, 0 and 2 objects in one batch."""
    images = [random_image(seed * 10 + i, count) for i, count in enumerate((9, 0, 2))]
    scores, boxes = torch.stack([x[0] for x in images]), torch.stack([x[1] for x in images])
    result = assign(scores, boxes, [x[2].tolist() for x in images], [x[3].tolist() for x in images])
    for i, (first, (image_scores, image_boxes, labels, truths)) in enumerate(zip((0, 9, 9), images, strict=True)):
        expected = slow_reference(image_scores, image_boxes, labels.tolist(), truths)
        assert result.positive_BA[i].nonzero().flatten().tolist() == sorted(expected)
        for point, (row, iou) in expected.items():
            assert result.gt_index_BA[i, point] == first + row
            assert result.quality_BA[i, point].item() == pytest.approx(iou, rel=1e-5, abs=1e-6)
        assert not result.quality_BA[i][~result.positive_BA[i]].any()


@pytest.mark.parametrize("case", range(4))
def test_agrees_with_reference_records(shared_reference: Path, case: int) -> None:
    """1 to 60 objects at 416 pixels, up to 38 contested points, 80 classes."""
    records = torch.load(shared_reference / "yolox_tiny.pt", weights_only=True)["simota"]
    record, strides = records["cases"][case], records["strides"]
    points = (records["shifts"] + 0.5) * strides[:, None]
    scores = record["cls_logits"].sigmoid() * record["obj_logits"].sigmoid()
    result = SimOTAAssigner()(
        scores[None],
        cxcywh_to_xyxy(record["pred_boxes"])[None],
        points,
        strides,
        packed([record["gt_labels"].tolist()], [cxcywh_to_xyxy(record["gt_boxes"]).tolist()]),
    )
    positive = record["fg"]
    assert torch.equal(result.positive_BA[0], positive)
    assert torch.equal(result.gt_index_BA[0, positive], record["gt_index"])
    torch.testing.assert_close(result.quality_BA[0, positive], record["iou"], rtol=2e-5, atol=1e-6)


def test_a_good_object_takes_more_points() -> None:
    """Five predictions of IoU 1 and none else that overlaps: k = 5; with all of them moved away: k = 1."""
    truth = [16.0, 16.0, 48.0, 48.0]
    scores, boxes = torch.full((1, len(POINTS), 3), 0.5), torch.full((1, len(POINTS), 4), 999.0)
    inside = ((POINTS - 32).abs() < 12).all(1).nonzero().flatten()
    boxes[0, inside[:5]] = torch.tensor(truth)
    assert assign(scores, boxes, [[0]], [[truth]]).positive_BA[0].nonzero().flatten().tolist() == inside[:5].tolist()
    boxes[:] = 999.0
    assert assign(scores, boxes, [[0]], [[truth]]).positive_BA.sum() == 1


def test_order_of_ground_truth_does_not_matter() -> None:
    scores, boxes, labels, truths = random_image(1, 8)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    one = assign(scores[None], boxes[None], [labels.tolist()], [truths.tolist()])
    other = assign(scores[None], boxes[None], [labels[order].tolist()], [truths[order].tolist()])
    assert torch.equal(one.positive_BA, other.positive_BA)
    assert torch.equal(one.gt_index_BA[one.positive_BA], order[other.gt_index_BA[other.positive_BA]])


def test_of_two_equal_objects_the_first_takes_the_points() -> None:
    result = assign_one([[20.0, 20.0, 40.0, 40.0]] * 2)
    assert result.positive_BA.any()
    assert not result.gt_index_BA.any()


def test_points_that_run_out_inside_are_taken_from_other_objects() -> None:
    """One coarse level: 4 points lie near the object, its predictions deserve 5."""
    points, strides = anchor_points([(3, 3)], [32])
    truths = [[8.0, 8.0, 24.0, 24.0], [40.0, 40.0, 120.0, 120.0]]
    boxes = torch.tensor(truths[0]).expand(1, 9, 4)
    result = SimOTAAssigner()(torch.full((1, 9, 1), 0.25), boxes, points, strides, packed([[0, 0]], [truths]))
    near_first = ((points - 16).abs() < 48).all(1)
    assert near_first.sum() == 4
    assert result.positive_BA[0][near_first].all()
    assert result.positive_BA.sum() > 4


@pytest.mark.parametrize("truth", [[500.0, 500.0, 520.0, 520.0], [-900.0, 0.0, -800.0, 9.0]], ids=str)
def test_an_object_far_outside_of_the_image_gets_none(truth: list[float]) -> None:
    assert not assign_one([truth]).positive_BA.any()
    beside_another = assign_one([truth, [4.0, 4.0, 30.0, 30.0]])
    assert beside_another.positive_BA.any()
    assert (beside_another.gt_index_BA[beside_another.positive_BA] == 1).all()


def test_an_image_without_candidates_beside_one_with() -> None:
    scores, boxes, _, _ = random_image(0, 1)
    outside, inside = [[500.0, 500.0, 520.0, 520.0]], [[4.0, 4.0, 30.0, 30.0]]
    result = assign(scores.expand(2, -1, -1), boxes.expand(2, -1, -1), [[0], [0]], [outside, inside])
    assert result.positive_BA.any(1).tolist() == [False, True]


def test_no_object_in_the_batch() -> None:
    scores, boxes, _, _ = random_image(0, 1)
    result = assign(scores[None], boxes[None], [[]], [[]])
    assert not result.positive_BA.any()
    assert not result.quality_BA.any()


def test_boxes_without_area_break_nothing() -> None:
    result = assign_one([[60.0, 60.0, 60.0, 60.0], [2.0, 2.0, 10.0, 10.0]])
    assert (result.gt_index_BA[result.positive_BA] == 0).sum() == 1
    assert result.quality_BA.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("score", [0.0, 1.0])
def test_other_precisions_and_saturated_scores_stay_finite(dtype: torch.dtype, score: float) -> None:
    _, boxes, labels, truths = random_image(2, 5)
    scores = torch.full((1, len(POINTS), 3), score, dtype=dtype)
    result = assign(scores, boxes[None].to(dtype), [labels.tolist()], [truths.tolist()])
    assert result.positive_BA.any()
    assert result.quality_BA.dtype == torch.promote_types(dtype, torch.float32)
    assert result.quality_BA.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 0}, "top_k must be at least 1; got 0"),
        ({"iou_weight": -1.0}, "iou_weight=-1.0"),
        ({"centre_radius": 0.0}, "centre_radius=0.0"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimOTAAssigner(**arguments)
