"""ResNet against torchvision (basic form), timm (its "d" form) and a forward pass written out (-vd of depth 18)."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from detkit.models.backbones import ResNet
from tests.models.torchvision_parity import check_equals_torchvision, randomise_norms

EVERY = ["relu", "layer1", "layer2", "layer3", "layer4"]
ODD_IMAGES = torch.rand(2, 3, 70, 90, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "depth", [18, 34, 50, pytest.param(101, marks=pytest.mark.long), pytest.param(152, marks=pytest.mark.long)]
)
def test_equals_torchvision(depth: Any, tmp_path: Path) -> None:
    check_equals_torchvision(ResNet(depth, out_levels=EVERY), f"resnet{depth}", tmp_path)


def test_first_weights_are_spread_as_torchvisions() -> None:
    torch.manual_seed(0)
    theirs = models.resnet18().state_dict()
    for name, tensor in ResNet(18).state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor.std(), theirs[name].std(), rtol=0.05, atol=1e-3, msg=name)
            torch.testing.assert_close(tensor.mean(), theirs[name].mean(), rtol=0, atol=1e-2, msg=name)


def test_frozen_norm_gives_the_same_numbers_and_never_changes(tmp_path: Path) -> None:
    usual, frozen = randomise_norms(ResNet(18)).eval(), ResNet(18, frozen_norm=True).train()
    torch.save(usual.state_dict(), tmp_path / "weights.pth")
    frozen.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
    names = [name for name in usual.state_dict() if not name.endswith("num_batches_tracked")]
    assert list(frozen.state_dict()) == names
    assert not [name for name, _ in frozen.named_parameters() if re.search(r"bn|downsample\.1", name)]
    for out, wanted in zip(frozen(ODD_IMAGES), usual(ODD_IMAGES), strict=True):
        torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())
    assert all(torch.equal(tensor, usual.state_dict()[name]) for name, tensor in frozen.state_dict().items())


def test_small_images_are_torchvisions_without_stride_and_pool_in_the_stem() -> None:
    backbone, theirs = ResNet(18, small_images=True).eval(), models.resnet18().eval()
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = nn.Identity()  # type: ignore[assignment]
    theirs.fc = nn.Identity()  # type: ignore[assignment]
    backbone.load_state_dict(randomise_norms(theirs).state_dict())
    images = torch.rand(2, 3, 32, 32)
    assert [(s.level, s.stride, s.name) for s in backbone.out_specs] == [
        ("P1", 2, "layer2"),
        ("P2", 4, "layer3"),
        ("P3", 8, "layer4"),
    ]
    torch.testing.assert_close(backbone(images)[-1].mean((2, 3)), theirs(images), rtol=1e-4, atol=1e-4)
    finest = ResNet(18, small_images=True, out_levels=["relu", "P0"]).out_specs
    assert [(s.level, s.name) for s in finest] == [("P0", "relu"), ("P0", "layer1")]


def test_deep_stem_and_pool_are_timms_d_form() -> None:
    timm = pytest.importorskip("timm")
    theirs = randomise_norms(timm.create_model("resnet50d", features_only=True)).eval()
    backbone = ResNet(50, stem="deep", shortcut="pool", out_levels=EVERY).eval()
    assert list(backbone.state_dict()) == list(theirs.state_dict())
    backbone.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        for out, wanted in zip(backbone(ODD_IMAGES), theirs(ODD_IMAGES), strict=True):
            torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-5 * wanted.abs().max().item())


def written_out_vd18(weights: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    """RT-DETR's smallest backbone, line by line: every stage's first block has a convolution in its shortcut."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            weights[f"{name}.{key}"].view(-1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    x = norm(conv(images, "conv1.0", stride=2), "conv1.1").relu()
    x = norm(conv(x, "conv1.3"), "conv1.4").relu()
    x = norm(conv(x, "conv1.6"), "bn1").relu()
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    features = []
    for stage, stride in (("layer1", 1), ("layer2", 2), ("layer3", 2), ("layer4", 2)):
        y = norm(conv(x, f"{stage}.0.conv1", stride), f"{stage}.0.bn1").relu()
        y = norm(conv(y, f"{stage}.0.conv2"), f"{stage}.0.bn2")
        shortcut = F.avg_pool2d(x, 2, stride=2, ceil_mode=True) if stride == 2 else x
        x = (y + norm(conv(shortcut, f"{stage}.0.downsample.1"), f"{stage}.0.downsample.2")).relu()
        y = norm(conv(x, f"{stage}.1.conv1"), f"{stage}.1.bn1").relu()
        x = (norm(conv(y, f"{stage}.1.conv2"), f"{stage}.1.bn2") + x).relu()
        features.append(x)
    return features[1:]


def test_vd_of_depth_18_is_the_written_out_one() -> None:
    backbone = randomise_norms(ResNet(18, stem="deep", shortcut="pool")).eval()
    with torch.no_grad():
        for out, wanted in zip(backbone(ODD_IMAGES), written_out_vd18(backbone.state_dict(), ODD_IMAGES), strict=True):
            torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())


RT_DETR_NAMES = (
    (r"^conv1\.conv1_3\.norm\.", "bn1."),
    (r"^conv1\.conv1_1\.conv\.", "conv1.0."),
    (r"^conv1\.conv1_1\.norm\.", "conv1.1."),
    (r"^conv1\.conv1_2\.conv\.", "conv1.3."),
    (r"^conv1\.conv1_2\.norm\.", "conv1.4."),
    (r"^conv1\.conv1_3\.conv\.", "conv1.6."),
    (r"^res_layers\.0\.blocks", "layer1"),
    (r"^res_layers\.1\.blocks", "layer2"),
    (r"^res_layers\.2\.blocks", "layer3"),
    (r"^res_layers\.3\.blocks", "layer4"),
    (r"branch2a\.conv", "conv1"),
    (r"branch2a\.norm", "bn1"),
    (r"branch2b\.conv", "conv2"),
    (r"branch2b\.norm", "bn2"),
    (r"branch2c\.conv", "conv3"),
    (r"branch2c\.norm", "bn3"),
    (r"short\.(conv\.)?norm", "downsample.2"),
    (r"short\.conv\.(conv\.)?", "downsample.1."),
)


@pytest.mark.parametrize(("depth", "frozen_norm"), [(18, False), (34, False), (50, True), (101, True)])
def test_every_weight_of_rt_detrs_backbones_has_its_place(
    depth: Any, frozen_norm: bool, shared_reference: Path
) -> None:
    with torch.device("meta"):
        backbone = ResNet(depth, stem="deep", shortcut="pool", frozen_norm=frozen_norm)
    own = {name: list(tensor.shape) for name, tensor in backbone.state_dict().items()}
    listed = json.loads((shared_reference / f"keys/keys_rtdetr_r{depth}_official.json").read_text())
    theirs = {}
    for name, (shape, _) in listed.items():
        if name.startswith("backbone."):
            mapped = name.removeprefix("backbone.")
            for pattern, replacement in RT_DETR_NAMES:
                mapped = re.sub(pattern, replacement, mapped)
            theirs[mapped] = shape
    assert theirs == own


def test_deeper_stages_are_not_built() -> None:
    assert [n for n, _ in ResNet(18, out_levels=["P2"]).named_children()] == [
        "conv1",
        "bn1",
        "relu",
        "maxpool",
        "layer1",
    ]


def test_published_weights_are_those_of_the_basic_form() -> None:
    published = ResNet(50, out_levels=["P2"], frozen_norm=True).published
    assert published is not None
    assert published.names == ["IMAGENET1K_V2", "IMAGENET1K_V1"]
    others: list[dict[str, Any]] = [{"stem": "deep"}, {"shortcut": "pool"}, {"small_images": True}]
    for other in others:
        assert ResNet(18, out_levels=["P2"], **other).published is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 20}, "depth must be one of 18, 34, 50, 101, 152; got 20"),
        ({"stem": "wide"}, "stem must be one of basic, deep; got 'wide'"),
        ({"shortcut": "none"}, "shortcut must be one of basic, pool; got 'none'"),
        ({"small_images": True, "stem": "deep"}, "stem must be basic with small_images.*; got 'deep'"),
        (
            {"out_levels": ["P6"]},
            r"no level or layer P6; this network has P1 \(relu, 64 ch.*P5 \(layer4, 2048 channels",
        ),
        ({"out_levels": ["fc"]}, "no level or layer fc"),
        ({"out_levels": []}, "no level or layer named"),
        ({"out_levels": ["layer2", "P3"]}, "layer2, P3 name the same map twice"),
        ({"small_images": True, "out_levels": ["P4"]}, r"P4; this network has P0 \(relu, 64 .*P3 \(layer4"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResNet(**arguments)
