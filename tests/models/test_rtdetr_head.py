"""The head of RT-DETR: which cells become queries, who sees whom, and where gradients go."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detkit.models.heads import RTDETRHead
from detkit.models.heads.denoising import Noise, noisy_queries
from detkit.ops.boxes import xyxy_to_cxcywh_norm
from detkit.ops.targets import pack_targets
from detkit.types import DETRPredictions, FeatureSpec, Targets
from tests.helpers.detr_batches import IMAGE_HW, NUM_CLASSES, random_targets
from tests.models.contract import silent_parameters, tensors, total, trained_a_little

SPECS = [FeatureSpec(6, 8, "P3"), FeatureSpec(8, 16, "P4"), FeatureSpec(12, 32, "P5")]
SIZES_HW = [(IMAGE_HW[0] // spec.stride, IMAGE_HW[1] // spec.stride) for spec in SPECS]
CELLS = sum(height * width for height, width in SIZES_HW)
SMALL = {"channels": 8, "num_queries": 20, "num_layers": 3, "num_heads": 2, "feedforward": 16, "num_denoising": 6}


def fresh_head(**options: Any) -> RTDETRHead:
    torch.manual_seed(0)
    return RTDETRHead(SPECS, NUM_CLASSES, **{**SMALL, **options}).double()


def head(**options: Any) -> RTDETRHead:
    """In double precision and evaluation, as after some steps."""
    trained = fresh_head(**options).eval()
    trained_a_little(trained)
    return trained


def maps(images: int = 2) -> list[Tensor]:
    rng = torch.Generator().manual_seed(1)
    return [
        torch.randn(images, spec.channels, *size_hw, generator=rng, dtype=torch.float64)
        for spec, size_hw in zip(SPECS, SIZES_HW, strict=True)
    ]


def targets(*counts: int) -> Targets:
    return pack_targets(random_targets(counts, torch.Generator().manual_seed(2), torch.float64))


def assert_equal(ours: Any, expected: Any) -> None:
    for one, other in zip(tensors(ours), tensors(expected), strict=True):
        torch.testing.assert_close(one, other)


def test_cells_start_from_boxes_of_their_place_and_level() -> None:
    """Untrained, all cells as queries: a box at each centre, of 1/20 of the image on the finest level."""
    predictions = fresh_head(num_queries=CELLS)(maps(1))
    expected = []
    for level, (height, width) in enumerate(SIZES_HW):
        for row in range(height):
            for column in range(width):
                box = [(column + 0.5) / width, (row + 0.5) / height, 0.05 * 2**level, 0.05 * 2**level]
                expected.append(box if all(0.01 < value < 0.99 for value in box) else [1.0] * 4)
    found = predictions.encoder.boxes_cxcywh_norm[0].tolist()
    assert sorted(found) == [pytest.approx(box, abs=1e-6) for box in sorted(expected)]
    for layer in predictions.layers:  # whose box layers move nothing yet
        torch.testing.assert_close(
            layer.boxes_cxcywh_norm[0], predictions.encoder.boxes_cxcywh_norm[0], atol=1e-4, rtol=0
        )


def test_cells_at_the_border_are_no_places() -> None:
    """The first of 60 columns is nearer than 1 % to the border: its box says so, and its features count as zero."""
    trained = head(num_queries=60)
    wide = [torch.randn(1, spec.channels, 1, 60).double() for spec in SPECS[:1]]
    wide += [torch.randn(1, spec.channels, 1, 1).double() for spec in SPECS[1:]]
    encoder = trained(wide).encoder
    masked = trained.cell_logits(trained.cell_features(torch.zeros(8).double()))
    at_step_end = (encoder.boxes_cxcywh_norm == 1).all(-1)[0]
    assert at_step_end.sum() == 2
    assert_equal(encoder.logits[0, at_step_end], masked.expand(2, -1))


def test_best_cells_become_queries_best_first() -> None:
    """Of all cells those whose best class is likeliest; the same boxes, in the same order."""
    every, some = head(num_queries=CELLS)(maps()).encoder, head(num_queries=9)(maps()).encoder
    best = every.logits.amax(-1)
    assert (best.diff(dim=1) <= 0).all()
    assert_equal(some, [values[:, :9] for values in every])


def test_fewer_layers_are_the_first_ones() -> None:
    every, fewer = head()(maps()), head(inference_layers=2)(maps())
    assert_equal(fewer.layers, every.layers[:2])
    assert_equal(fewer.encoder, every.encoder)
    assert len(head(inference_layers=2)(maps(), targets(1, 2)).layers) == 3


def test_fewer_queries_are_the_better_ones() -> None:
    """As a head that never had more of them; with targets all are made."""
    fewer = head(inference_queries=7)
    assert_equal(fewer(maps()), head(num_queries=7)(maps()))
    assert_equal(fewer(maps()).encoder, [values[:, :7] for values in head()(maps()).encoder])
    assert fewer(maps(), targets(1, 2)).encoder.logits.shape[1] == 20


@pytest.mark.parametrize("given", [None, targets(2, 1)], ids=["inference", "training"])
def test_no_more_queries_than_cells(given: Targets | None) -> None:
    predictions = head(num_queries=CELLS + 50)(maps(), given)
    assert all(output.logits.shape[1] == CELLS for output in (*predictions.layers, predictions.encoder))
    assert all(values.isfinite().all() for values in tensors(predictions))


@pytest.mark.parametrize("counts", [(2, 3), (0, 2), (0, 0)], ids=str)
@pytest.mark.parametrize("options", [{}, {"num_denoising": 0}, {"sampling": "discrete"}], ids=str)
def test_every_parameter_has_a_gradient_in_every_step(counts: tuple[int, int], options: dict[str, Any]) -> None:
    """So that several processes need not look for parameters without one, whatever is on their images."""
    trained = head(**options).train()
    total(trained(maps(), targets(*counts))).backward()
    assert [name for name, p in trained.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in trained.parameters() if p.grad is not None)
    assert silent_parameters(trained) == (
        ["noisy_classes.weight"] if not any(counts) and "num_denoising" not in options else []
    )


def reached(output: Tensor, module: nn.Module) -> bool:
    """Whether the output has a gradient for the module's parameters."""
    gradients = torch.autograd.grad(output.sum(), list(module.parameters()), retain_graph=True, allow_unused=True)
    return any(gradient is not None and bool(gradient.any()) for gradient in gradients)


def test_box_layers_learn_from_their_own_output_and_the_next() -> None:
    """Look forward twice; what a layer says of classes never reaches a box layer, as reference boxes are detached."""
    trained = head()
    layers = trained(maps()).layers
    boxes = [[reached(layer.boxes_cxcywh_norm, part) for part in trained.box_offsets] for layer in layers]
    assert boxes == [[True, False, False], [True, True, False], [False, True, True]]
    assert not any(reached(layer.logits, part) for layer in layers for part in trained.box_offsets)


def test_boxes_told_are_those_that_the_next_layer_starts_from() -> None:
    """Two ways to a box, with more gradient and less: the same numbers."""
    trained = head()
    with torch.no_grad():
        for part in trained.box_offsets[1:]:
            for parameter in part.parameters():
                parameter.zero_()
    first, *others = trained(maps()).layers
    for layer in others:
        torch.testing.assert_close(layer.boxes_cxcywh_norm, first.boxes_cxcywh_norm, rtol=0, atol=2e-5)


def test_encoder_learns_from_its_own_output_alone() -> None:
    trained = head()
    predictions = trained(maps())
    of_cells = (trained.cell_features, trained.cell_boxes, trained.cell_logits)
    assert [reached(predictions.encoder.boxes_cxcywh_norm, part) for part in of_cells] == [True, True, False]
    assert [reached(predictions.encoder.logits, part) for part in of_cells] == [True, False, True]
    last = predictions.layers[-1]
    assert not any(reached(values, part) for values in last for part in of_cells)
    assert reached(last.logits, trained.project)  # by way of what the decoder reads


def test_noisy_queries_influence_no_other() -> None:
    """With targets and without, other queries say the same: the answer is not told, nor does padding matter."""
    trained = head()
    without = trained(maps())
    for counts in ((2, 3), (0, 4), (1, 1)):
        given = trained(maps(), targets(*counts))
        assert given.denoising is not None
        assert_equal(given._replace(denoising=None), without)


def test_groups_see_no_other_group() -> None:
    """By gradients through all layers: from whom what each query says depends."""
    trained = head()
    noisy = noisy_queries(targets(1, 2), IMAGE_HW, NUM_CLASSES, 20, Noise(6))
    assert noisy is not None
    assert noisy.groups == 3
    parts = [slice(0, 4), slice(4, 8), slice(8, 12), slice(12, 32)]
    queries = torch.randn(2, 32, 8, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(2, CELLS, 8, dtype=torch.float64)
    outputs = trained._decode(queries, torch.rand(2, 32, 4).double(), memory, SIZES_HW, noisy.blocked, 3)
    depends = []
    for part in parts:
        said = sum((values[:, part].sum() for values in outputs[-1]), start=torch.zeros(()))
        (gradient,) = torch.autograd.grad(said, queries, retain_graph=True)
        depends.append([bool(gradient[:, other].any()) for other in parts])
    assert depends == [
        [True, False, False, True],
        [False, True, False, True],
        [False, False, True, True],
        [False, False, False, True],
    ]


def test_noisy_queries_are_told_apart_and_their_rows_lead_to_their_objects() -> None:
    """Untrained and without noise, the boxes at these rows are those of the objects."""
    given = targets(2, 0, 3)
    predictions = fresh_head(label_noise=0.0, box_noise=0.0)(maps(3), given)
    denoising = predictions.denoising
    assert denoising is not None
    assert denoising.groups == 2
    assert torch.equal(given.image_rows[denoising.gt_rows], denoising.image_rows)
    expected = xyxy_to_cxcywh_norm(given.boxes, IMAGE_HW)[denoising.gt_rows]
    for layer in denoising.layers:
        assert layer.logits.shape == (3, 2 * 3 * 2, NUM_CLASSES)
        boxes = layer.boxes_cxcywh_norm[denoising.image_rows, denoising.query_rows]
        torch.testing.assert_close(boxes, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("counts", [None, (0, 0)], ids=str)
def test_no_object_no_noise(counts: tuple[int, int] | None) -> None:
    given = None if counts is None else targets(*counts)
    predictions: DETRPredictions = head()(maps(), given)
    assert predictions.denoising is None
    assert predictions.image_hw == IMAGE_HW


def test_classes_start_at_one_percent() -> None:
    start = fresh_head()
    for layer in (start.cell_logits, *start.class_logits):
        torch.testing.assert_close(layer.get_parameter("bias").sigmoid(), torch.full((NUM_CLASSES,), 0.01).double())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: fresh_head(num_queries=0), "num_queries=0"),
        (lambda: fresh_head(num_layers=0), "num_layers=0"),
        (lambda: fresh_head(inference_layers=4), "no more layers run than there are; got .* inference_layers=4"),
        (lambda: fresh_head(inference_layers=0), "inference_layers=0"),
        (lambda: fresh_head(inference_queries=0), "inference_queries=0"),
        (lambda: RTDETRHead(SPECS, 0), "num_classes=0"),
        (lambda: fresh_head(num_denoising=-1), "must not be negative; got num_denoising=-1"),
        (lambda: fresh_head(label_noise=-0.5), r"label_noise=-0\.5"),
        (lambda: fresh_head(box_noise=-1.0), r"box_noise=-1\.0"),
        (lambda: fresh_head(num_points=[4, 4]), r"one for each of the 3 levels; got \[4, 4\]"),
        (lambda: fresh_head(num_points=0), r"num_points must be at least 1 for each level; got \[0, 0, 0\]"),
        (lambda: fresh_head(channels=9), "channels must be a multiple of num_heads; got 9 and 2"),
        (lambda: fresh_head(sampling="nearest"), "bilinear or discrete; got 'nearest'"),
    ],
)
def test_wrong_arguments_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
