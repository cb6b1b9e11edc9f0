"""The loss of RT-DETR: transformers' terms and gradients, terms by hand, empty batches, extremes, two ranks."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.utils._python_dispatch import TorchDispatchMode

from detkit.assign import HungarianAssigner
from detkit.losses import DETRLoss
from detkit.losses.focal import ClassLossKind
from detkit.ops.targets import pack_targets
from detkit.types import Denoising, DETRPredictions, QueryOutput, Target
from tests.helpers.detr_batches import (
    IMAGE_HW,
    NUM_CLASSES,
    as_labels,
    leaves,
    random_predictions,
    random_targets,
)
from tests.helpers.targets import target

LAYERS = 3
NAMES = [
    f"{name}{suffix}"
    for suffix in ("", "_aux_0", "_aux_1", "_enc", "_dn_0", "_dn_1", "_dn_2")
    for name in ("cls", "l1", "giou")
]
COUNTS = [(3, 0, 5), (1,), (12, 4), (15, 2), (2, 7, 1, 0)]  # of 12 queries
EMPTY = [target([], []), target([], [])]


def loss_of(predictions: DETRPredictions, targets: list[Target], **arguments: Any) -> dict[str, Tensor]:
    return DETRLoss(HungarianAssigner(), **arguments)(predictions, pack_targets(targets))


def total_of(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def reference_terms(predictions: DETRPredictions, targets: list[Target], **weights: Any) -> dict[str, Tensor]:
    """Those of transformers, under the names they have here. Imported here: ranks start faster without it."""
    from transformers import RTDetrConfig
    from transformers.loss.loss_rt_detr import RTDetrForObjectDetectionLoss

    layers, noisy = predictions.layers, predictions.denoising
    config: Any = {"num_labels": NUM_CLASSES, **weights}
    meta = None
    if noisy is not None:
        positive = [noisy.query_rows[noisy.image_rows == image] for image in range(len(targets))]
        split = [noisy.layers[0].logits.shape[1], layers[0].logits.shape[1]]
        meta = {"dn_positive_idx": positive, "dn_num_group": noisy.groups, "dn_num_split": split}
        layers = [
            QueryOutput(*(torch.cat(both, dim=1) for both in zip(*pair, strict=True)))
            for pair in zip(noisy.layers, layers, strict=True)
        ]
    _, terms, _ = RTDetrForObjectDetectionLoss(
        layers[-1].logits,
        as_labels(targets),
        torch.device("cpu"),
        layers[-1].boxes_cxcywh_norm,
        RTDetrConfig(**config),
        torch.stack([layer.logits for layer in layers], dim=1),
        torch.stack([layer.boxes_cxcywh_norm for layer in layers], dim=1),
        predictions.encoder.logits,
        predictions.encoder.boxes_cxcywh_norm,
        meta,
    )
    renamed = {}
    for name, value in terms.items():
        kind, _, suffix = name.removeprefix("loss_").partition("_")
        ours = {"vfl": "cls", "bbox": "l1", "giou": "giou"}[kind]
        suffix = "enc" if suffix == f"aux_{LAYERS - 1}" else suffix  # they take the encoder for one layer more
        renamed[f"{ours}_{suffix}".rstrip("_")] = value
    return renamed


@pytest.mark.parametrize("groups", [0, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
def test_terms_and_gradients_agree_with_transformers(dtype: torch.dtype, tolerance: float, groups: int) -> None:
    rng = torch.Generator().manual_seed(0)
    for counts in COUNTS * 3:
        predictions = random_predictions(counts, rng, dtype, LAYERS, groups=groups)
        targets = random_targets(counts, rng, dtype)
        terms, expected = loss_of(predictions, targets), reference_terms(predictions, targets)
        assert list(terms) == NAMES and len(expected) == (21 if groups else 12)
        for name, value in expected.items():
            torch.testing.assert_close(terms[name], value, rtol=tolerance, atol=tolerance, msg=name)
        found = torch.autograd.grad(total_of(terms), leaves(predictions))
        theirs = torch.autograd.grad(total_of(expected), leaves(predictions))
        for gradient, their_gradient in zip(found, theirs, strict=True):
            torch.testing.assert_close(gradient, their_gradient, rtol=tolerance, atol=tolerance)


def test_weights_are_those_of_transformers() -> None:
    rng = torch.Generator().manual_seed(1)
    predictions = random_predictions((4, 2), rng, torch.float64, LAYERS)
    targets = random_targets((4, 2), rng, torch.float64)
    terms = loss_of(predictions, targets, cls_weight=3.0, l1_weight=0.5, giou_weight=7.0)
    expected = reference_terms(predictions, targets, weight_loss_vfl=3.0, weight_loss_bbox=0.5, weight_loss_giou=7.0)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-12, atol=1e-12)


def one_query(gt_box: list[float]) -> tuple[DETRPredictions, list[Target]]:
    """It has the scores 0.5 and 0.75 and the box from 40 to 120 over all the height; the object has class 1."""
    logits = torch.tensor([[[0.0, math.log(3)]]], requires_grad=True)
    boxes = torch.tensor([[[0.5, 0.5, 0.5, 1.0]]], requires_grad=True)
    output = QueryOutput(logits, boxes)
    return DETRPredictions([output], output, None, IMAGE_HW), [target([gt_box], [1])]


@pytest.mark.parametrize(
    ("kind", "absent", "present"), [("bce", 1, 1), ("focal", 1 / 4, 25 / 144), ("varifocal", 3 / 16, 1 / 3)]
)
def test_terms_by_hand(kind: ClassLossKind, absent: float, present: float) -> None:
    """IoU and GIoU are 1/3, the centres are a quarter of the width apart."""
    terms = loss_of(*one_query([0, 0, 80, 96]), cls_loss=kind)
    entropy = -math.log(0.75) / 3 - math.log(0.25) * 2 / 3
    for suffix in ("", "_enc"):
        assert terms[f"cls{suffix}"].item() == pytest.approx(absent * math.log(2) + present * entropy)
        assert terms[f"l1{suffix}"].item() == pytest.approx(5 / 4)
        assert terms[f"giou{suffix}"].item() == pytest.approx(2 * 2 / 3)


def test_pair_without_overlap_is_no_negative() -> None:
    """Its class weighs nothing, as the authors have it; the box learns."""
    predictions, targets = one_query([130, 0, 150, 96])
    terms = loss_of(predictions, targets)
    assert terms["cls"].item() == pytest.approx(3 / 16 * math.log(2))
    logits_gradient, boxes_gradient = torch.autograd.grad(total_of(terms), predictions.encoder)
    assert logits_gradient[0, 0, 0] > 0 and logits_gradient[0, 0, 1] < 1e-30 and boxes_gradient.any()


def test_crowds_take_no_part() -> None:
    rng = torch.Generator().manual_seed(0)
    predictions, targets = random_predictions((2, 1), rng), random_targets((2, 1), rng)
    crowded = [truth._replace(crowd_boxes=torch.tensor([[0.0, 0.0, 90.0, 90.0]])) for truth in targets]
    assert loss_of(predictions, crowded) == loss_of(predictions, targets)


def test_order_of_the_objects_does_not_matter() -> None:
    rng = torch.Generator().manual_seed(0)
    predictions, targets = random_predictions((6, 9), rng), random_targets((6, 9), rng)
    flipped = [truth._replace(boxes=truth.boxes.flip(0), labels=truth.labels.flip(0)) for truth in targets]
    torch.testing.assert_close(loss_of(predictions, flipped), loss_of(predictions, targets))


def test_no_object_in_the_batch() -> None:
    """Only negatives: box terms are 0; every term but the absent ones leads to its output, under the usual names."""
    predictions = random_predictions((0, 0), torch.Generator().manual_seed(0), layers=LAYERS)
    terms = loss_of(predictions, EMPTY)
    assert list(terms) == NAMES
    for name, value in terms.items():
        assert (value > 0) == (name.startswith("cls") and "_dn_" not in name)
        assert value.requires_grad == ("_dn_" not in name)
    outputs = {"_aux_0": predictions.layers[0], "": predictions.layers[-1], "_enc": predictions.encoder}
    for suffix, (logits, boxes) in outputs.items():
        for name, leaf in (("cls", logits), ("l1", boxes), ("giou", boxes)):
            (gradient,) = torch.autograd.grad(terms[name + suffix], leaf, retain_graph=True)
            assert gradient.any() == (name == "cls")


def test_same_names_with_and_without_noisy_queries() -> None:
    """Means over an epoch and over ranks are taken of the terms in their order."""
    rng = torch.Generator().manual_seed(0)
    some, none = random_predictions((2,), rng, groups=2), random_predictions((0,), rng, groups=2)
    with_noise, without = loss_of(some, random_targets((2,), rng)), loss_of(none, EMPTY[:1])
    assert some.denoising and not none.denoising
    assert list(with_noise) == list(without)
    assert all(with_noise[name] > 0 for name in NAMES)
    assert not any(value for name, value in without.items() if "_dn_" in name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_as_its_values(dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(0)
    predictions, targets = random_predictions((3, 0, 4), rng, dtype, groups=2), random_targets((3, 0, 4), rng)
    assert predictions.denoising
    exact = predictions._replace(
        layers=[as_double(layer) for layer in predictions.layers],
        encoder=as_double(predictions.encoder),
        denoising=predictions.denoising._replace(layers=[as_double(x) for x in predictions.denoising.layers]),
    )
    terms = loss_of(predictions, targets)
    assert all(value.dtype == torch.float32 for value in terms.values())
    for name, value in loss_of(exact, targets).items():
        torch.testing.assert_close(terms[name].double(), value, rtol=1e-5, atol=1e-6)
    total_of(terms).backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves(predictions))


def as_double(output: QueryOutput) -> QueryOutput:
    return QueryOutput(*(values.detach().double() for values in output))


KINDS = [
    lambda u: u.repeat(1, 2),  # no area
    lambda u: torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(len(u), 4),  # all the image
    lambda u: torch.cat((u - 1, u + 1.5), dim=1),  # beyond the image
    lambda u: torch.cat((u, u + 0.2), dim=1),
    lambda u: torch.cat((u, u + 1e-6), dim=1),  # next to no area
]


def test_odd_objects_and_extreme_predictions_stay_finite() -> None:
    """300 batches with none, one, some or 300 objects in an image, and all float formats."""
    rng = torch.Generator().manual_seed(0)
    height, width = IMAGE_HW

    def draw(most: int) -> int:
        return int(torch.randint(most, (), generator=rng))

    assigner = HungarianAssigner()
    loss = DETRLoss(assigner)
    for number in range(300):
        dtype = (torch.float32, torch.bfloat16, torch.float16)[number % 3]
        counts = [(0, 1, 1 + draw(9), 300 if number % 10 == 0 else 0)[draw(4)] for _ in range(1 + draw(3))]
        targets = []
        for count in counts:
            corners = torch.cat(
                [KINDS[draw(5)](torch.rand(1, 2, generator=rng)) for _ in range(count)] or [EMPTY[0].boxes]
            )
            boxes = corners * torch.tensor([width, height, width, height])
            targets.append(target(boxes.tolist(), torch.randint(NUM_CLASSES, (count,), generator=rng).tolist()))
        predictions = random_predictions(counts, rng, dtype, layers=2, queries=8, groups=draw(2))
        with torch.no_grad():
            for leaf in leaves(predictions):
                extreme = torch.rand(leaf.shape, generator=rng) < 0.3
                values = torch.tensor([0.0, 1.0] if leaf.shape[-1] == 4 else [-6e4, 6e4], dtype=dtype)
                leaf[extreme] = values[torch.randint(2, leaf.shape, generator=rng)][extreme]
        terms = loss(predictions, pack_targets(targets))
        total_of(terms).backward()
        assert all(value.isfinite() for value in terms.values()), (number, terms)
        assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves(predictions)), number
    assert assigner.replaced_costs == 0


@pytest.mark.parametrize("part", ["logits", "boxes_cxcywh_norm"])
def test_predictions_that_are_nan_show_in_their_terms(part: str) -> None:
    """No exception: the terms name the layer, and the run is stopped for them. One unpaired query is enough."""
    rng = torch.Generator().manual_seed(0)
    predictions, targets = random_predictions((3, 2), rng, layers=LAYERS), random_targets((3, 2), rng)
    assigner = HungarianAssigner()
    with torch.no_grad():
        getattr(predictions.layers[1], part)[0, 7] = math.nan
    terms = DETRLoss(assigner)(predictions, pack_targets(targets))
    term = "cls" if part == "logits" else "l1"
    assert [name for name, value in terms.items() if not value.isfinite()] == [f"{term}_aux_1"]
    assert assigner.replaced_costs == 3
    with torch.no_grad():
        for leaf in leaves(predictions):
            leaf.fill_(math.nan)
    terms = DETRLoss(assigner)(predictions, pack_targets(targets))
    assert [name for name, value in terms.items() if value.isnan()] == NAMES[:12]


@pytest.mark.parametrize("argument", ["cls_weight", "l1_weight", "giou_weight"])
def test_negative_weights_are_refused(argument: str) -> None:
    arguments: Any = {argument: -1}
    with pytest.raises(ValueError, match=f"must not be negative; got .*{argument}=-1"):
        DETRLoss(HungarianAssigner(), **arguments)


class Waits(TorchDispatchMode):
    """Gathers the calls that would wait for a device: sizes or numbers that it must tell, what is sent to it."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "lift_fresh", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        name = func.overloadpacket.__name__
        indices = [index for index in args[1] if index is not None] if name in ("index", "index_put_") else []
        if name in self.NAMES or any(index.dtype == torch.bool for index in indices):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def test_only_the_pairs_are_sent_to_the_device() -> None:
    rng = torch.Generator().manual_seed(0)
    predictions, targets = random_predictions((3, 0, 2), rng, groups=2), pack_targets(random_targets((3, 0, 2), rng))
    with Waits() as waits:
        total_of(DETRLoss(HungarianAssigner())(predictions, targets))
    assert waits.calls > 100 and waits.found == ["lift_fresh"]  # the pairs of all outputs, in one piece


def test_waits_are_found() -> None:
    values = torch.ones(3)
    with Waits() as waits:
        _ = values.sum().item(), values.nonzero(), values[values > 0], values.new_tensor(1.0)
    assert waits.found == ["_local_scalar_dense", "nonzero", "index", "lift_fresh"]


@pytest.mark.gpu
def test_gpu_waits_once_and_gives_the_terms_of_the_cpu() -> None:
    """The debug mode raises at every hidden wait; the assigner's own is an event's, which it knows nothing of."""
    rng = torch.Generator().manual_seed(0)
    predictions, targets = random_predictions((3, 0, 2), rng, groups=2), random_targets((3, 0, 2), rng)
    moved, on_gpu = to_gpu(predictions), to_gpu(pack_targets(targets))
    torch.cuda.set_sync_debug_mode("error")
    try:
        terms = DETRLoss(HungarianAssigner())(moved, on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for name, value in loss_of(predictions, targets).items():
        torch.testing.assert_close(terms[name].cpu(), value, rtol=1e-4, atol=1e-5)


def to_gpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.cuda()
    if isinstance(value, list):
        return [to_gpu(item) for item in value]
    return type(value)(*map(to_gpu, value)) if hasattr(value, "_fields") else value


def share_of(predictions: DETRPredictions, rows: slice) -> DETRPredictions:
    """What the rank with these images sees."""
    layers, encoder, noisy, image_hw = predictions

    def cut(output: QueryOutput) -> QueryOutput:
        return QueryOutput(*(values[rows] for values in output))

    if noisy is not None:
        here = (noisy.image_rows >= rows.start) & (noisy.image_rows < rows.stop)
        gt_rows = noisy.gt_rows[here]  # those of the ranks before come first
        indices = (noisy.image_rows[here] - rows.start, noisy.query_rows[here], gt_rows - gt_rows.min().clamp(min=0))
        noisy = Denoising([cut(layer) for layer in noisy.layers], *indices, noisy.groups)
    return DETRPredictions([cut(layer) for layer in layers], cut(encoder), noisy, image_hw)


CASES = [((3, 1, 4, 0), 2), ((2, 3, 0, 0), 0)]  # objects of each image and groups of noisy queries


def joined_batch(case: int) -> tuple[DETRPredictions, list[Target]]:
    rng = torch.Generator().manual_seed(case)
    counts, groups = CASES[case]
    return random_predictions(counts, rng, groups=groups), random_targets(counts, rng)


def _rank_gradients(rank: int, folder: str) -> None:
    """One of two ranks; in the second case rank 1 has no object."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    results = []
    for case in range(len(CASES)):
        predictions, targets = joined_batch(case)
        rows = slice(2 * rank, 2 * rank + 2)
        terms = loss_of(share_of(predictions, rows), targets[rows])
        gradients = torch.autograd.grad(total_of(terms), leaves(predictions))
        results.append(({name: value.detach() for name, value in terms.items()}, gradients))
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_give_the_loss_of_one_process(tmp_path: Path) -> None:
    """The mean over ranks of terms and gradients is that of the joined batch."""
    spawn(_rank_gradients, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for case in range(len(CASES)):
        predictions, targets = joined_batch(case)
        terms = loss_of(predictions, targets)
        (terms_0, gradients_0), (terms_1, gradients_1) = ranks[0][case], ranks[1][case]
        assert list(terms_0) == list(terms_1) == list(terms)
        for name, value in terms.items():
            torch.testing.assert_close((terms_0[name] + terms_1[name]) / 2, value.detach(), rtol=1e-5, atol=1e-6)
        expected = torch.autograd.grad(total_of(terms), leaves(predictions))
        for gradient, first, second in zip(expected, gradients_0, gradients_1, strict=True):
            torch.testing.assert_close((first + second) / 2, gradient, rtol=1e-5, atol=1e-6)
