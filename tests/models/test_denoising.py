"""Noisy queries against a loop that draws the same numbers, and what the paper says of them."""

import pytest
import torch
from torch import Tensor

from detkit.models.heads.denoising import Noise, NoisyQueries, noisy_queries
from detkit.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh_norm
from detkit.ops.targets import pack_targets
from detkit.types import Target
from tests.helpers.detr_batches import IMAGE_HW, NUM_CLASSES, random_targets
from tests.helpers.targets import target

OTHERS = 7
NOTHING = Noise(12, label=0.0, box=0.0)
EPSILON = 1e-5  # of inverse_sigmoid


def batch(*counts: int) -> list[Target]:
    return random_targets(counts, torch.Generator().manual_seed(0))


def make(targets: list[Target], noise: Noise, seed: int = 0) -> NoisyQueries:
    torch.manual_seed(seed)
    noisy = noisy_queries(pack_targets(targets), IMAGE_HW, NUM_CLASSES, OTHERS, noise)
    assert noisy is not None
    return noisy


def slow_reference(targets: list[Target], noise: Noise, seed: int) -> tuple[Tensor, Tensor]:
    """Labels and cxcywh_norm boxes, one corner at a time, of the numbers that torch draws."""
    height, width = IMAGE_HW
    most = max(len(one.labels) for one in targets)
    groups = max(1, noise.num_queries // most)
    shape = (len(targets), 2 * groups * most)
    torch.manual_seed(seed)
    is_drawn, drawn = torch.rand(shape) < noise.label / 2, torch.randint(NUM_CLASSES, shape)
    signs, sizes = torch.randint(0, 2, (*shape, 4)) * 2 - 1, torch.rand(*shape, 4)
    labels, boxes = torch.full(shape, NUM_CLASSES), torch.zeros(*shape, 4)
    for image, one in enumerate(targets):
        for slot in range(shape[1]):
            row, is_negative = slot % most, slot // most % 2
            if row >= len(one.labels):
                continue
            labels[image, slot] = drawn[image, slot] if is_drawn[image, slot] else one.labels[row]
            x1, y1, x2, y2 = (one.boxes[row] / torch.tensor([width, height, width, height])).tolist()
            half_sides = ((x2 - x1) / 2, (y2 - y1) / 2) * 2
            corners = [
                min(max(corner + int(sign) * (size.item() + is_negative) * noise.box * half_side, 0.0), 1.0)
                for corner, sign, size, half_side in zip(
                    (x1, y1, x2, y2), signs[image, slot], sizes[image, slot], half_sides, strict=True
                )
            ]
            x1, y1, x2, y2 = corners
            boxes[image, slot] = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
    return labels, boxes


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [Noise(), Noise(20, label=1.5, box=0.4), NOTHING], ids=str)
def test_agrees_with_slow_reference(noise: Noise, seed: int) -> None:
    """Padding and boxes whose corners changed places have no logit of their own: that of the least side."""
    targets = batch(3, 1, 0)
    ours = make(targets, noise, seed)
    labels, boxes = slow_reference(targets, noise, seed)
    assert torch.equal(ours.labels, labels)
    torch.testing.assert_close(ours.box_logits.sigmoid(), boxes.clamp(EPSILON, 1 - EPSILON), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("num_queries", "most", "groups"), [(100, 7, 14), (12, 3, 4), (5, 9, 1), (1, 1, 1)])
def test_number_of_groups(num_queries: int, most: int, groups: int) -> None:
    """As many as fit into the wanted number of positives, at least one."""
    noisy = make(batch(1, most), Noise(num_queries))
    assert noisy.groups == groups
    assert noisy.labels.shape == (2, 2 * most * groups)
    assert noisy.blocked.shape == (2 * most * groups + OTHERS,) * 2


def test_rows_lead_to_the_positives_of_each_object() -> None:
    """Without noise the queries at these rows are the objects themselves, each once in every group."""
    targets = batch(2, 0, 3)
    noisy = make(targets, NOTHING)
    found = list(zip(noisy.image_rows.tolist(), noisy.query_rows.tolist(), noisy.gt_rows.tolist(), strict=True))
    assert len(set(found)) == len(found) == (2 + 3) * noisy.groups == 20
    for image, query, row in found:
        assert query // 3 % 2 == 0  # of six queries of a group the first three
        assert row == (0, 2, 2)[image] + query % 3
        assert noisy.labels[image, query] == targets[image].labels[query % 3]
        expected = xyxy_to_cxcywh_norm(targets[image].boxes[query % 3], IMAGE_HW)
        torch.testing.assert_close(noisy.box_logits[image, query].sigmoid(), expected)


def test_each_group_sees_itself_and_the_others() -> None:
    noisy = make(batch(2, 1), Noise(6))
    assert noisy.groups == 3
    parts = [slot // 4 for slot in range(12)] + ["others"] * OTHERS
    for row, looking in enumerate(parts):
        for column, seen in enumerate(parts):
            assert bool(noisy.blocked[row, column]) == (seen not in (looking, "others")), (row, column)


def test_labels_change_as_often_as_wanted() -> None:
    """With probability label / 2 a label is drawn among all classes, of which one is its own; all are as likely."""
    noisy = make([target([[10, 10, 50, 50]], [3])] * 200, Noise(100, label=0.5))
    counts = noisy.labels.flatten().bincount(minlength=NUM_CLASSES + 1) / noisy.labels.numel()
    expected = torch.full((NUM_CLASSES + 1,), 0.25 / NUM_CLASSES)
    expected[3], expected[NUM_CLASSES] = 0.75 + 0.25 / NUM_CLASSES, 0
    four_deviations = 4 * (expected * (1 - expected) / noisy.labels.numel()).sqrt()
    assert ((counts - expected).abs() <= four_deviations).all()


def test_corners_of_positives_move_less_than_those_of_negatives() -> None:
    """In half sides times 0.4: positives 0 to 1, negatives 1 to 2, uniformly, in both directions alike."""
    corners = torch.tensor([60.0, 40.0, 100.0, 60.0])
    noisy = make([target([corners.tolist()], [0])], Noise(5000, box=0.4))
    height, width = IMAGE_HW
    boxes = cxcywh_to_xyxy(noisy.box_logits[0].sigmoid()) * torch.tensor([width, height, width, height])
    moved = (boxes - corners) / torch.tensor([20.0, 10.0, 20.0, 10.0]) / 0.4
    positives, negatives = moved[0::2].abs(), moved[1::2].abs()
    assert noisy.query_rows.tolist() == list(range(0, 10_000, 2))
    for sizes, least in ((positives, 0.0), (negatives, 1.0)):
        assert sizes.min() > least - 1e-3 and sizes.max() < least + 1 + 1e-3
        torch.testing.assert_close(sizes.mean(0), torch.full((4,), least + 0.5), rtol=0, atol=0.02)
    torch.testing.assert_close((moved > 0).float().mean(0), torch.full((4,), 0.5), rtol=0, atol=0.02)


def test_noisy_boxes_stay_inside_of_the_image() -> None:
    """Of boxes at the border, without a side, of the whole image and far outside, too."""
    boxes = [
        [0, 0, 40, 40],
        [150, 90, 160, 96],
        [5, 5, 5, 5],
        [0, 0, 160, 96],
        [-900, -50, 900, 500],
        [300, 300, 310, 320],
    ]
    noisy = make([target(boxes, [0] * 6)], Noise(600, box=1.0))
    assert noisy.box_logits.isfinite().all()
    corners = cxcywh_to_xyxy(noisy.box_logits.sigmoid().double())
    assert corners.min() >= -EPSILON and corners.max() <= 1 + EPSILON


def test_same_seed_same_noise() -> None:
    first, second, other = (make(batch(3, 2), Noise(), seed) for seed in (1, 1, 2))
    assert torch.equal(first.labels, second.labels) and torch.equal(first.box_logits, second.box_logits)
    assert not torch.equal(first.labels, other.labels) and not torch.equal(first.box_logits, other.box_logits)


def test_without_noise_nothing_is_drawn() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    noisy_queries(pack_targets(batch(2, 1)), IMAGE_HW, NUM_CLASSES, OTHERS, NOTHING)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("counts", "num_queries"), [((0, 0), 100), ((2, 1), 0)])
def test_nothing_to_make_noise_of(counts: tuple[int, int], num_queries: int) -> None:
    assert noisy_queries(pack_targets(batch(*counts)), IMAGE_HW, NUM_CLASSES, OTHERS, Noise(num_queries)) is None
