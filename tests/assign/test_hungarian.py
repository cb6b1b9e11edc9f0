"""Hungarian assignment against transformers and against all permutations; costs that are not finite; no waiting."""

import itertools
import logging
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torchvision.ops import box_convert, generalized_box_iou
from transformers import RTDetrConfig
from transformers.loss.loss_rt_detr import RTDetrHungarianMatcher

from detkit.assign import HungarianAssigner, Pairs
from detkit.ops.targets import pack_targets
from detkit.types import QueryOutput, Target, Targets
from tests.helpers.detr_batches import IMAGE_HW, as_labels, random_output, random_targets
from tests.helpers.targets import target

COUNTS = [(3, 0, 5), (1,), (0, 0), (12, 12), (20, 2), (7, 1, 0, 9)]  # of 12 queries


def triples(pairs: Pairs, targets: Targets | None = None) -> list[tuple[int, ...]]:
    """Image, query and object; with targets the object by its place in its image."""
    found = sorted(zip(*(rows.tolist() for rows in pairs), strict=True))
    starts = [0, *targets.box_counts.cumsum().tolist()] if targets else [0] * (len(found) + 1)
    return [(image, query, row - starts[image]) for image, query, row in found]


def reference_triples(matcher: RTDetrHungarianMatcher, output: QueryOutput, targets: list[Target]) -> list[tuple]:
    found = matcher({"logits": output.logits, "pred_boxes": output.boxes_cxcywh_norm}, as_labels(targets))
    return sorted(
        (image, *pair) for image, rows in enumerate(found) for pair in zip(*(r.tolist() for r in rows), strict=True)
    )


def slow_costs(output: QueryOutput, image: int, truth: Target) -> Tensor:
    """(N, Q) one by one, in float64, with the default weights."""
    height, width = IMAGE_HW
    costs = torch.zeros(len(truth.labels), output.logits.shape[1], dtype=torch.float64)
    for row, column in itertools.product(range(costs.shape[0]), range(costs.shape[1])):
        p = 1 / (1 + math.exp(-output.logits[image, column, truth.labels[row]].item()))
        focal = 0.25 * (1 - p) ** 2 * -math.log(p + 1e-8) - 0.75 * p**2 * -math.log(1 - p + 1e-8)
        query = output.boxes_cxcywh_norm[image, column].detach().double()
        wanted = truth.boxes[row].double() / torch.tensor([width, height, width, height])
        l1 = (query - box_convert(wanted, "xyxy", "cxcywh")).abs().sum()
        giou = generalized_box_iou(box_convert(query, "cxcywh", "xyxy")[None], wanted[None])
        costs[row, column] = 2 * focal + 5 * l1 - 2 * giou
    return costs


def least(costs: Tensor) -> tuple[int, float]:
    """Of all ways to give every object a query of its own: fewest costs that are NaN, then the least sum."""
    rows = torch.arange(len(costs))
    choices = (costs[rows, list(queries)] for queries in itertools.permutations(range(costs.shape[1]), len(costs)))
    return min((int(chosen.isnan().sum()), float(chosen.nansum())) for chosen in choices)


@pytest.mark.parametrize("arguments", [{}, {"cls_weight": 0.5, "l1_weight": 1.0, "alpha": 0.4, "gamma": 1.5}], ids=str)
def test_agrees_with_transformers(arguments: dict[str, float]) -> None:
    names = {"cls_weight": "matcher_class_cost", "l1_weight": "matcher_bbox_cost"}
    theirs: Any = {names.get(name, f"matcher_{name}"): value for name, value in arguments.items()}
    matcher, assigner = RTDetrHungarianMatcher(RTDetrConfig(**theirs)), HungarianAssigner(**arguments)
    rng = torch.Generator().manual_seed(0)
    for counts in COUNTS * 20:
        targets = random_targets(counts, rng)
        outputs = [random_output(len(counts), 12, rng) for _ in range(3)]
        for output, pairs in zip(outputs, assigner(outputs, pack_targets(targets), IMAGE_HW), strict=True):
            assert triples(pairs, pack_targets(targets)) == reference_triples(matcher, output, targets)
            assert len(pairs.gt_rows) == sum(min(count, 12) for count in counts)
            assert all(rows.dtype == torch.int64 for rows in pairs)
    assert assigner.replaced_costs == 0


@pytest.mark.parametrize("seed", range(5))
def test_no_other_choice_is_cheaper(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    targets, output = random_targets((3, 4), rng), random_output(2, 5, rng)
    (pairs,) = HungarianAssigner()([output], pack_targets(targets), IMAGE_HW)
    for image, truth in enumerate(targets):
        costs, here = slow_costs(output, image, truth), pairs.image_rows == image
        rows = pairs.gt_rows[here] - (0, 3)[image]
        assert rows.tolist() == list(range(len(truth.labels)))
        total = costs[rows, pairs.query_rows[here]].sum().item()
        assert total == pytest.approx(least(costs)[1], rel=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_pairs_that_are_not_finite_come_last(seed: int) -> None:
    """Each object has a class of its own, so a NaN in one logit spoils one pair; fewest such, then least cost."""
    rng = torch.Generator().manual_seed(seed)
    (truth,) = random_targets((4,), rng)
    truth = truth._replace(labels=torch.arange(4))
    logits, boxes = (values.detach() for values in random_output(1, 5, rng))
    spoilt = torch.rand(logits.shape, generator=rng) < 0.6
    costs = slow_costs(QueryOutput(logits, boxes), 0, truth).masked_fill(spoilt[0, :, :4].T, math.nan)
    assigner = HungarianAssigner()
    (pairs,) = assigner([QueryOutput(logits.masked_fill(spoilt, math.nan), boxes)], pack_targets([truth]), IMAGE_HW)
    chosen = costs[pairs.gt_rows, pairs.query_rows]
    count, total = least(costs)
    assert int(chosen.isnan().sum()) == count
    assert float(chosen.nansum()) == pytest.approx(total, rel=1e-6)
    assert assigner.replaced_costs == int(spoilt[..., :4].sum())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38])
def test_broken_predictions_are_counted_and_told_once(value: float, caplog: pytest.LogCaptureFixture) -> None:
    """One query's box is broken: no object gets it; all are broken: each object gets one all the same."""
    rng = torch.Generator().manual_seed(0)
    targets, output = random_targets((3, 2), rng), random_output(2, 6, rng)
    assigner = HungarianAssigner()
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        output.boxes_cxcywh_norm[0, 4] = value
        (pairs,) = assigner([output], pack_targets(targets), IMAGE_HW)
        assert assigner.replaced_costs == 3 and len(pairs.gt_rows) == 5
        assert (0, 4) not in zip(pairs.image_rows.tolist(), pairs.query_rows.tolist(), strict=True)
        output.boxes_cxcywh_norm[:] = value
        (pairs,) = assigner([output], pack_targets(targets), IMAGE_HW)
    assert assigner.replaced_costs == 3 + 5 * 6
    assert [image for image, _, _ in triples(pairs)] == [0, 0, 0, 1, 1]
    assert len({(image, query) for image, query, _ in triples(pairs)}) == 5
    (record,) = caplog.records
    assert record.getMessage().startswith("3 of 30 costs of pairing queries with objects are not finite")


def test_degenerate_boxes_have_a_cost() -> None:
    height, width = IMAGE_HW
    boxes = [[5, 5, 5, 5], [0, 0, width, height], [-50, -40, 400, 300], [10, 3, 10, 60], [300, 200, 310, 205]]
    output = random_output(1, 9, torch.Generator().manual_seed(0))
    with torch.no_grad():
        output.boxes_cxcywh_norm[0, :3] = torch.tensor(
            [[5 / width, 5 / height, 0, 0], [0.5, 0.5, 1, 1], [2, -1, 0, 3.0]]
        )
        output.logits[0, 3], output.logits[0, 4] = 6e4, -6e4
    assigner = HungarianAssigner()
    (pairs,) = assigner([output], pack_targets([target(boxes, [0, 1, 2, 3, 4])]), IMAGE_HW)
    assert assigner.replaced_costs == 0
    assert {(0, 0, 0), (0, 1, 1)} <= set(triples(pairs))  # the point and the whole image, exactly predicted


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_costs_as_its_values_do(dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(0)
    targets, output = random_targets((7, 3), rng), random_output(2, 12, rng, dtype)
    exact = QueryOutput(*(values.detach().double() for values in output))
    half, double = (HungarianAssigner()([given], pack_targets(targets), IMAGE_HW)[0] for given in (output, exact))
    assert triples(half) == triples(double)


def test_one_output_does_not_see_another() -> None:
    rng = torch.Generator().manual_seed(0)
    targets, outputs = pack_targets(random_targets((4, 0, 6), rng)), [random_output(3, 8, rng) for _ in range(4)]
    together = HungarianAssigner()(outputs, targets, IMAGE_HW)
    alone = [HungarianAssigner()([output], targets, IMAGE_HW)[0] for output in outputs]
    assert [triples(pairs) for pairs in together] == [triples(pairs) for pairs in alone]
    assert len({tuple(triples(pairs)) for pairs in together}) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"l1_weight": -1.0}, "got cls_weight=2.0, l1_weight=-1.0, giou_weight=2.0"),
        ({"cls_weight": 0, "l1_weight": 0, "giou_weight": 0}, "nor all 0; got cls_weight=0"),
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\].* got alpha=1.5"),
        ({"gamma": -2.0}, "gamma=-2.0"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HungarianAssigner(**arguments)


def test_each_image_needs_a_target() -> None:
    output = random_output(2, 4, torch.Generator())
    with pytest.raises(ValueError, match="got 2 images and 1 targets"):
        HungarianAssigner()([output], pack_targets([target([], [])]), IMAGE_HW)


@pytest.mark.gpu
@pytest.mark.parametrize("counts", [(3, 0, 5), (0, 0, 0)])
def test_gpu_pairs_are_those_of_the_cpu(counts: Sequence[int]) -> None:
    rng = torch.Generator().manual_seed(0)
    targets, outputs = pack_targets(random_targets(counts, rng)), [random_output(3, 30, rng) for _ in range(3)]
    on_gpu = [QueryOutput(*(values.cuda() for values in output)) for output in outputs]
    moved = tree_map(lambda leaf: leaf.cuda() if isinstance(leaf, Tensor) else leaf, targets)
    expected = HungarianAssigner()(outputs, targets, IMAGE_HW)
    found = HungarianAssigner()(on_gpu, moved, IMAGE_HW)
    assert all(rows.is_cuda for pairs in found for rows in pairs)
    assert [triples(pairs) for pairs in found] == [triples(pairs) for pairs in expected]
