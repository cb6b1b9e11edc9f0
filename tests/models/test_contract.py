"""What every backbone, neck and head promises. A new one is added to its table and to nothing else here."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from detkit.models import Detector, Preprocess
from detkit.models.backbones import CSPDarknet, ResNet, ShuffleNetV2
from detkit.models.heads import RTDETRHead, YOLOHead
from detkit.models.necks import FPN, PAN, HybridEncoder
from detkit.ops.targets import pack_targets
from detkit.types import FeatureSpec, Target
from tests.models import contract

P2_TO_P6 = ["P2", "P3", "P4", "P5", "P6"]
BACKBONES: dict[str, Callable[..., Any]] = {
    "csp_darknet": partial(CSPDarknet, depth_multiple=0.33, width_multiple=0.25),
    "csp_darknet_depthwise": partial(CSPDarknet, depth_multiple=0.33, width_multiple=0.25, depthwise=True),
    "csp_darknet_p2_to_p6": partial(CSPDarknet, depth_multiple=0.33, width_multiple=0.25, out_levels=P2_TO_P6),
    "csp_darknet_stem": partial(CSPDarknet, width_multiple=0.25, out_levels=["stem", "stages.0"]),
    "resnet18": partial(ResNet, depth=18),
    "resnet18_p2": partial(ResNet, depth=18, out_levels=["P1", "P2"]),
    "resnet18_vd": partial(ResNet, depth=18, stem="deep", shortcut="pool"),
    "resnet18_small_images": partial(ResNet, depth=18, small_images=True),
    "resnet50": partial(ResNet, depth=50),
    "resnet50_vd_frozen_norm": partial(ResNet, depth=50, stem="deep", shortcut="pool", frozen_norm=True),
    "shufflenet_x0_5": partial(ShuffleNetV2, width="x0_5"),
    "shufflenet_x1_0_p1": partial(ShuffleNetV2, width="x1_0", out_levels=["P1", "P2", "P3"]),
}
EXPORTED_OFTEN = {"csp_darknet", "resnet18_vd", "resnet18_small_images", "shufflenet_x0_5"}  # one of each kind
SPECS = [FeatureSpec(16, 8, "P3"), FeatureSpec(24, 16, "P4"), FeatureSpec(40, 32, "P5")]
NECKS: dict[str, Callable[..., Any]] = {
    "fpn": partial(FPN, depth_multiple=0.33),
    "fpn_narrow": partial(FPN, channels=[8, 8, 8]),
    "pan": partial(PAN, depth_multiple=0.33),
    "pan_depthwise": partial(PAN, depthwise=True, channels=[16, 16, 32]),
    "hybrid_encoder": partial(HybridEncoder, channels=16, num_heads=2, feedforward=32, expansion=0.5),
    "hybrid_encoder_no_attention": partial(HybridEncoder, channels=16, num_layers=0, depth=1),
}
HEADS: dict[str, Callable[..., Any]] = {
    "yolo": partial(YOLOHead, num_classes=5),
    "yolo_one_bin": partial(YOLOHead, num_classes=1, num_bins=1, depthwise=True),
    "yolox": partial(YOLOHead, num_classes=5, objectness=True, box_coding="offsets", num_bins=1),
    "rtdetr": partial(RTDETRHead, num_classes=5, channels=16, num_queries=30, num_layers=2, feedforward=32),
    "rtdetr_discrete": partial(
        RTDETRHead, num_classes=1, channels=16, num_layers=1, num_points=[2, 1, 3], sampling="discrete", num_denoising=0
    ),
}


def features(specs: list[FeatureSpec], size_hw: tuple[int, int], images: int = 2) -> list[Tensor]:
    rng = torch.Generator().manual_seed(0)
    height, width = size_hw
    return [torch.randn(images, s.channels, height // s.stride, width // s.stride, generator=rng) for s in specs]


@pytest.mark.parametrize("size_hw", [(64, 64), (64, 128)], ids=str)
@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_specs_tell_the_truth(name: str, size_hw: tuple[int, int]) -> None:
    backbone = BACKBONES[name]()
    contract.check_specs(backbone, size_hw)
    assert {spec.name for spec in backbone.out_specs} <= {layer for layer, _ in backbone.named_modules()}


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_parameter_learns(name: str) -> None:
    contract.check_every_parameter_learns(BACKBONES[name]())


@pytest.mark.parametrize("name", BACKBONES)
def test_one_image_does_not_see_another(name: str) -> None:
    contract.check_images_apart(BACKBONES[name]())


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_runs_in_bfloat16(name: str) -> None:
    contract.check_bfloat16(BACKBONES[name]())


@pytest.mark.parametrize(
    "name", [name if name in EXPORTED_OFTEN else pytest.param(name, marks=pytest.mark.long) for name in BACKBONES]
)
def test_backbone_is_exported(name: str) -> None:
    contract.check_export(BACKBONES[name]())


@pytest.mark.parametrize("name", BACKBONES)
def test_fewer_levels_are_the_same_maps(name: str) -> None:
    contract.check_out_levels(BACKBONES[name])


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("name", ["fpn", "pan", "hybrid_encoder"])
def test_neck_keeps_strides_for_any_number_of_levels(name: str, levels: int) -> None:
    neck = NECKS[name](SPECS[-levels:])
    outputs = neck(features(SPECS[-levels:], (64, 96)))
    assert [s.stride for s in neck.out_specs] == [s.stride for s in SPECS[-levels:]]
    assert [tuple(o.shape) for o in outputs] == [
        (2, s.channels, 64 // s.stride, 96 // s.stride) for s in neck.out_specs
    ]


@pytest.mark.parametrize("name", NECKS)
def test_every_neck_parameter_learns_and_specs_hold(name: str) -> None:
    neck = NECKS[name](SPECS)
    outputs = neck(features(SPECS, (64, 64)))
    assert [o.shape[1] for o in outputs] == [s.channels for s in neck.out_specs]
    contract.total(outputs).backward()
    assert contract.silent_parameters(neck) == []


def test_pan_lets_the_finest_level_reach_the_coarsest_and_fpn_does_not() -> None:
    maps = features(SPECS, (64, 64))
    changed = [maps[0] + 1, *maps[1:]]
    reaches = {}
    for name in ("fpn", "pan"):
        neck = NECKS[name](SPECS).eval()
        reaches[name] = not torch.equal(neck(maps)[2], neck(changed)[2])
    assert reaches == {"fpn": False, "pan": True}


@pytest.mark.parametrize("name", HEADS)
def test_every_head_parameter_learns(name: str) -> None:
    """In a training step: a head that takes targets is given some."""
    head = contract.trained_a_little(HEADS[name](SPECS))
    target = Target(torch.tensor([[8.0, 8.0, 40.0, 50.0]]), torch.tensor([0]), torch.zeros(0, 4), 0, (64, 96))
    maps = features(SPECS, (64, 96))
    predictions = head(maps, pack_targets([target] * 2)) if getattr(head, "takes_targets", False) else head(maps)
    contract.total(predictions).backward()
    assert contract.silent_parameters(head) == []


@pytest.mark.parametrize("name", ["yolo", "yolo_one_bin", "yolox"])
def test_head_speaks_for_every_point(name: str) -> None:
    head = HEADS[name](SPECS)
    predictions = head(features(SPECS, (64, 96)))
    num_points = 8 * 12 + 4 * 6 + 2 * 3
    assert predictions.logits.shape == (2, num_points, head.num_classes)
    assert predictions.points.shape == (num_points, 2)
    assert predictions.strides.unique_consecutive().tolist() == [8, 16, 32]


def test_head_output_belongs_to_its_own_cell() -> None:
    """A change at one cell moves the outputs within the reach of two 3x3 convolutions, and no other level."""
    head = HEADS["yolo"](SPECS).eval()
    maps = features(SPECS, (64, 64), images=1)
    before = head(maps)
    changed = [m.clone() for m in maps]
    changed[0][0, :, 4, 5] += 10
    moved = (head(changed).logits != before.logits).any(-1)[0]
    cells = ((before.points[moved] - 4) / 8).int().tolist()
    assert cells == [[column, row] for row in range(2, 7) for column in range(3, 8)]
    assert not moved[64:].any()


def test_classes_start_at_their_prior() -> None:
    head: Any = YOLOHead(SPECS, num_classes=3, prior=0.02)
    torch.testing.assert_close(head.class_logits[0].bias.sigmoid(), torch.full((3,), 0.02))


# centres of the first and the last cell of strides 8, 16 and 32 in an image of 64 x 64 pixels
CORNER_CELLS = [[4, 4], [60, 60], [8, 8], [56, 56], [16, 16], [48, 48]]


@pytest.mark.parametrize("neck", [FPN, PAN])
@pytest.mark.parametrize("name", BACKBONES)
def test_detector_joins_any_backbone_neck_and_head(name: str, neck: Callable[..., Any]) -> None:
    """The narrow neck makes the wide backbones cheap; what is counted is one prediction for each cell."""
    narrow = lambda specs: neck(specs, depth_multiple=0.33, channels=[16] * len(specs))  # noqa: E731
    detector = Detector(BACKBONES[name](), narrow, HEADS["yolo"]).eval()
    with torch.no_grad():
        predictions = detector(torch.rand(1, 3, 64, 64))
    cells = sum((64 // spec.stride) ** 2 for spec in detector.backbone.out_specs)
    assert predictions.logits.shape == (1, cells, 5)
    assert predictions.logits.isfinite().all()


@pytest.mark.parametrize("neck", NECKS)
def test_detector_joins_any_neck(neck: str) -> None:
    detector = Detector(BACKBONES["csp_darknet"](), NECKS[neck], HEADS["yolo"])
    predictions = detector(torch.rand(1, 3, 64, 64))
    assert predictions.strides.tolist() == [8] * 64 + [16] * 16 + [32] * 4
    assert predictions.points[[0, 63, 64, 79, 80, 83]].tolist() == CORNER_CELLS


def test_preprocess_by_hand() -> None:
    image = torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1)
    out = Preprocess("bgr", scale=255.0, mean=(1.0, 2.0, 3.0), std=(2.0, 2.0, 4.0))(image)
    torch.testing.assert_close(out.flatten(), torch.tensor([(229.5 - 1) / 2, (127.5 - 2) / 2, (25.5 - 3) / 4]))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CSPDarknet(width_multiple=0), "must be positive; got .* width_multiple=0"),
        (lambda: CSPDarknet(width_multiple=0.1), "width_multiple=0.1 leaves fewer than 8"),
        (lambda: FPN([SPECS[0], SPECS[2]]), r"got strides \[8, 32\]"),
        (lambda: PAN(SPECS, channels=[8]), r"each of the 3 levels; got \[8\]"),
        (lambda: HybridEncoder([SPECS[0], SPECS[2]]), r"got strides \[8, 32\]"),
        (lambda: HybridEncoder(SPECS, channels=18), "multiple of 4; got 18"),
        (lambda: HybridEncoder(SPECS, channels=36), "multiple of num_heads; got 36 and 8"),
        (lambda: HybridEncoder(SPECS, channels=16, expansion=0.01), "leaves none"),
        (lambda: YOLOHead(SPECS, num_classes=0), "got num_classes=0"),
        (lambda: YOLOHead(SPECS, num_classes=1, box_coding="offsets"), "needs num_bins=1; got 16"),
        (lambda: Preprocess("gbr"), "rgb or bgr; got 'gbr'"),  # type: ignore[arg-type]
        (lambda: Preprocess(std=(1, 0, 1)), r"std must be positive; got \(1, 0, 1\)"),
    ],
)
def test_wrong_arguments_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
