"""RT-DETR as a whole: over any backbone, in other precisions and memory formats, exported."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from detkit.models.backbones import CSPDarknet, ResNet, ShuffleNetV2, TimmBackbone
from detkit.ops.targets import pack_targets
from tests.helpers.detr_batches import IMAGE_HW, random_targets
from tests.helpers.small_rtdetr import small_rtdetr
from tests.models.contract import silent_parameters, tensors, total, trained_a_little

P2_TO_P5 = ["P2", "P3", "P4", "P5"]
BACKBONES: dict[str, Callable[[], Any]] = {
    "shufflenet": partial(ShuffleNetV2, "x0_5"),
    "csp_darknet": partial(CSPDarknet, depth_multiple=0.33, width_multiple=0.25),
    "timm": partial(TimmBackbone, "mobilenetv3_small_050"),
    "one_level": partial(ShuffleNetV2, "x0_5", out_levels=["P5"]),
    "two_levels": partial(ShuffleNetV2, "x0_5", out_levels=["P3", "P4"]),
    "four_levels": partial(ResNet, 18, stem="deep", shortcut="pool", out_levels=P2_TO_P5),
}
BATCH = torch.export.Dim("batch", min=1, max=64)
IMAGES = torch.rand(2, 3, *IMAGE_HW, generator=torch.Generator().manual_seed(0))
TARGETS = pack_targets(random_targets((2, 1), torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", BACKBONES)
def test_joins_any_backbone(name: str) -> None:
    """Every level is read, every parameter of neck and head learns, and images do not see each other."""
    detector = small_rtdetr(BACKBONES[name]())
    trained_a_little(detector.head)
    total(detector(IMAGES, TARGETS)).backward()
    silent = [name for name in silent_parameters(detector) if not name.startswith("backbone.")]
    assert silent == []
    detector.eval()
    with torch.no_grad():
        both, alone = detector(IMAGES), detector(IMAGES[1:])
    for values, expected in zip(tensors(both), tensors(alone), strict=True):
        torch.testing.assert_close(values[1:], expected, rtol=1e-3, atol=1e-4)


def test_channels_last_gives_the_same_numbers() -> None:
    detector = small_rtdetr().eval()
    trained_a_little(detector.head)
    with torch.no_grad():
        expected = detector(IMAGES)
        detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        ours = detector(IMAGES.contiguous(memory_format=torch.channels_last))
    for values, others in zip(tensors(ours), tensors(expected), strict=True):
        torch.testing.assert_close(values, others, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sampling", ["bilinear", "discrete"])
def test_autocast_keeps_boxes_in_float32_and_everything_finite(sampling: str) -> None:
    detector = small_rtdetr(sampling=sampling)
    trained_a_little(detector.head)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predictions = detector(IMAGES, TARGETS)
    assert predictions.denoising is not None
    for output in (*predictions.layers, *predictions.denoising.layers, predictions.encoder):
        assert output.boxes_cxcywh_norm.dtype == torch.float32
    total(predictions).backward()
    assert all(values.isfinite().all() for values in tensors(predictions))
    assert all(p.grad.isfinite().all() for p in detector.parameters() if p.grad is not None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_half_precision(dtype: torch.dtype) -> None:
    """Close to float32 for the same queries: which cells become queries may differ, so all of them do."""
    detector = small_rtdetr(num_queries=1000).eval()
    trained_a_little(detector.head)
    with torch.no_grad():
        exact = detector(IMAGES).encoder.boxes_cxcywh_norm
        predictions = detector.to(dtype)(IMAGES.to(dtype))
    assert predictions.layers[-1].logits.dtype == dtype
    assert all(values.isfinite().all() for values in tensors(predictions))
    centres = predictions.encoder.boxes_cxcywh_norm.mean(1)
    torch.testing.assert_close(centres, exact.mean(1), rtol=0, atol=0.01)


def check_exported(module: nn.Module, inputs: Any, dynamic_shapes: Any, others: list[Any]) -> None:
    """The same numbers for other inputs, nothing random and nothing of the noise inside."""
    program = torch.export.export(module, (inputs,), dynamic_shapes=(dynamic_shapes,), strict=False)
    exported = program.module()
    for other in others:
        with torch.no_grad():
            ours, expected = exported(other), module(other)
        assert ours.image_hw == expected.image_hw
        for values, wanted in zip(tensors(ours), tensors(expected), strict=True):
            torch.testing.assert_close(values, wanted, rtol=1e-4, atol=1e-4)
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [name for name in called if any(word in name for word in ("rand", "embedding"))]
    used = {node.target for node in program.graph.nodes if node.op == "placeholder" and node.users}
    assert not [name for name in used if "noisy" in name]
    assert any("cell_logits_weight" in name for name in used)


def test_head_is_exported_for_any_number_of_images() -> None:
    detector = small_rtdetr(num_layers=1).eval()
    trained_a_little(detector.head)
    specs = detector.neck.out_specs
    shapes = [(spec.channels, IMAGE_HW[0] // spec.stride, IMAGE_HW[1] // spec.stride) for spec in specs]
    two, one, three = ([torch.randn(images, *shape) for shape in shapes] for images in (2, 1, 3))
    check_exported(detector.head, two, [{0: BATCH}] * len(specs), [one, three])


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["bilinear", pytest.param("discrete", marks=pytest.mark.long)])
def test_exported_for_any_number_and_size_of_images(sampling: str) -> None:
    detector = small_rtdetr(sampling=sampling).eval()
    trained_a_little(detector.head)
    height, width = torch.export.Dim("height", min=2, max=40), torch.export.Dim("width", min=2, max=40)
    others = [torch.rand(1, 3, *IMAGE_HW), torch.rand(3, 3, 64, 128)]
    check_exported(detector, IMAGES, {0: BATCH, 2: 32 * height, 3: 32 * width}, others)
