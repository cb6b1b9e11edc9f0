"""Both YOLO losses: terms by hand, empty images, crowds, precision, and ranks that agree with one process."""

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from detkit.assign import SimOTAAssigner, TaskAlignedAssigner
from detkit.losses import YOLOLoss, YOLOXLoss
from detkit.losses.matching import points_in_crowds
from detkit.ops.box_coding import encode_offsets
from detkit.ops.points import anchor_points
from detkit.ops.targets import pack_targets
from detkit.types import Target, YOLOPredictions
from tests.helpers.targets import target

POINTS, STRIDES = anchor_points([(8, 8), (4, 4)], [8, 16])
NUM_POINTS = len(POINTS)
LOSSES = {"yolo": lambda: YOLOLoss(TaskAlignedAssigner()), "yolox": lambda: YOLOXLoss(SimOTAAssigner(), l1_weight=1.0)}


TARGETS = [target([[4, 4, 30, 36], [30, 20, 62, 60]], [0, 2]), target([], []), target([[10, 8, 40, 24]], [1])]
EMPTY = [target([], []), target([], [])]


def random_predictions(name: str, images: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> YOLOPredictions:
    rng = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng).to(dtype).requires_grad_()

    if name == "yolo":
        return YOLOPredictions(
            leaf(images, NUM_POINTS, 3), leaf(images, NUM_POINTS, 32), None, POINTS, STRIDES, "distances"
        )
    boxes, objectness = leaf(images, NUM_POINTS, 4), leaf(images, NUM_POINTS)
    return YOLOPredictions(leaf(images, NUM_POINTS, 3), boxes, objectness, POINTS, STRIDES, "offsets")


def terms_of(name: str, predictions: YOLOPredictions, targets: list[Target]) -> dict[str, Tensor]:
    return LOSSES[name]()(predictions, pack_targets(targets))


def total_of(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def leaves(predictions: YOLOPredictions) -> list[Tensor]:
    return [x for x in predictions[:3] if isinstance(x, Tensor)]


def test_yolo_terms_by_hand() -> None:
    """One point, one object: the box is exact, so quality is 1, box is 0 and cls is cross-entropy by hand."""
    points, strides = anchor_points([(1, 1)], [16])
    logits = torch.tensor([[[0.0, math.log(3.0)]]])  # scores 0.5 and 0.75
    distribution = torch.full((1, 1, 4, 4), -1e4)
    distribution[..., 1] = 0.0  # every side at 1 stride
    predictions = YOLOPredictions(logits, distribution.flatten(2), None, points, strides, "distances")
    terms = YOLOLoss(TaskAlignedAssigner(), cls_weight=2.0)(
        predictions, pack_targets([target([[-8, -8, 24, 24]], [1])])
    )
    assert terms["cls"].item() == pytest.approx(2 * (math.log(2) - math.log(0.75)))
    assert terms["box"].item() == pytest.approx(0, abs=1e-5)
    assert terms["dfl"].item() == pytest.approx(0, abs=1e-5)


def test_yolox_terms_by_hand() -> None:
    """One point that predicts the object exactly: only objectness and class are left to learn."""
    points, strides = anchor_points([(1, 1)], [16])
    truth = target([[-8, -8, 24, 24]], [1])
    predictions = YOLOPredictions(
        torch.tensor([[[0.0, math.log(3.0)]]]),
        encode_offsets(truth.boxes, points, strides)[None],
        torch.zeros(1, 1),
        points,
        strides,
        "offsets",
    )
    terms = YOLOXLoss(SimOTAAssigner(), l1_weight=1.0)(predictions, pack_targets([truth]))
    assert terms["obj"].item() == pytest.approx(math.log(2))
    assert terms["cls"].item() == pytest.approx(math.log(2) - math.log(0.75), abs=1e-5)
    assert terms["box"].item() == pytest.approx(0, abs=1e-5)
    assert terms["l1"].item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_no_object_in_the_batch(name: str) -> None:
    """Only negatives: box terms are 0, the rest is finite, and every leaf of the predictions gets a gradient."""
    predictions = random_predictions(name, 2)
    terms = terms_of(name, predictions, EMPTY)
    total_of(terms).backward()
    negatives = terms.pop("cls" if name == "yolo" else "obj")
    assert negatives > 0 and not any(terms.values())
    assert all(x.grad is not None and x.grad.isfinite().all() for x in leaves(predictions))


@pytest.mark.parametrize("name", LOSSES)
def test_order_of_the_objects_does_not_matter(name: str) -> None:
    predictions = random_predictions(name, 3)
    swapped = [target(TARGETS[0].boxes.flip(0).tolist(), [2, 0]), *TARGETS[1:]]
    torch.testing.assert_close(terms_of(name, predictions, TARGETS), terms_of(name, predictions, swapped))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_finite(name: str, dtype: torch.dtype) -> None:
    predictions = random_predictions(name, 3, dtype=dtype)
    terms = terms_of(name, predictions, TARGETS)
    total_of(terms).backward()
    assert all(term.isfinite() for term in terms.values())
    assert all(x.grad is not None and x.grad.isfinite().all() for x in leaves(predictions))


@pytest.mark.parametrize("name", LOSSES)
def test_double_precision_is_kept_all_the_way(name: str) -> None:
    """A thousandth of a change of the inputs changes each term by a thousandth; float32 would round it away."""
    predictions = random_predictions(name, 3, dtype=torch.float64)

    def terms_after(change: float) -> Tensor:
        moved = [x.detach() + change * x.detach().cos() for x in leaves(predictions)]
        fields = dict(zip(("logits", "boxes", "objectness"), moved, strict=False))
        truth = [t._replace(boxes=t.boxes.double() + change * t.boxes.double().sin()) for t in TARGETS]
        terms = terms_of(name, predictions._replace(**fields), truth)
        return torch.stack(list(terms.values()))

    start, small, large = (terms_after(0.1 + change) for change in (0.0, 1e-9, 1e-6))
    torch.testing.assert_close((small - start) * 1000, large - start, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_points_in_a_crowd_are_no_negatives(name: str) -> None:
    """Confident nonsense inside a crowd region costs nothing; outside it costs."""
    predictions = random_predictions(name, 1)
    wrong = predictions.logits if name == "yolo" else predictions.objectness
    assert wrong is not None
    inside = (POINTS < 32).all(-1)
    with torch.no_grad():
        wrong[:, inside] = 20.0
    term = "cls" if name == "yolo" else "obj"
    free = terms_of(name, predictions, [target([], [], [[0, 0, 32, 32]])])[term]
    charged = terms_of(name, predictions, [target([], [])])[term]
    assert (charged - free).item() == pytest.approx(20 * inside.sum().item() * (1.5 if name == "yolo" else 1), rel=1e-4)


def test_crowd_points_by_hand() -> None:
    inside = points_in_crowds(POINTS, pack_targets([target([], []), target([], [], [[0, 0, 8, 8], [8, 0, 16, 8]])]))
    assert inside[0].sum() == 0
    assert POINTS[inside[1]].tolist() == [[4, 4], [12, 4], [8, 8]]


def test_yolox_loss_needs_its_own_head() -> None:
    with pytest.raises(ValueError, match="got box_coding=distances, objectness=False"):
        YOLOXLoss(SimOTAAssigner())(random_predictions("yolo", 2), pack_targets(EMPTY))


def _rank_gradients(rank: int, name: str, folder: str) -> None:
    """One of two ranks: rank 0 sees two images, rank 1 a single one or none with objects."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    predictions = random_predictions(name, 4)
    rows = slice(0, 2) if rank == 0 else slice(2, 4)
    share = YOLOPredictions(*(x[rows] if i < 3 and x is not None else x for i, x in enumerate(predictions)))  # type: ignore[index]
    terms = terms_of(name, share, [*TARGETS[:2], *EMPTY][rows])
    total = total_of(terms)
    torch.save(
        (total.detach(), torch.autograd.grad(total, leaves(predictions), allow_unused=True)), f"{folder}/{rank}.pt"
    )
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_two_ranks_give_the_loss_of_one_process(name: str, tmp_path: Path) -> None:
    """The mean over ranks of losses and gradients is that of the joined batch, with one rank without objects."""
    spawn(_rank_gradients, args=(name, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    predictions = random_predictions(name, 4)
    total = total_of(terms_of(name, predictions, [*TARGETS[:2], *EMPTY]))
    torch.testing.assert_close((ranks[0][0] + ranks[1][0]) / 2, total.detach(), rtol=1e-5, atol=1e-6)
    expected = torch.autograd.grad(total, leaves(predictions))
    for index, gradient in enumerate(expected):
        torch.testing.assert_close((ranks[0][1][index] + ranks[1][1][index]) / 2, gradient, rtol=1e-5, atol=1e-6)
