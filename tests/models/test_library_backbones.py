"""Backbones from torchvision and timm, against the libraries themselves."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import models

from detkit.models import Detector
from detkit.models.backbones import TimmBackbone, TorchvisionBackbone
from detkit.models.backbones.published import WeightsUnavailableError
from detkit.models.backbones.torchvision import find_layers
from detkit.models.heads import YOLOHead
from detkit.models.necks import FPN, PAN
from detkit.types import FeatureSpec
from tests.helpers.layer_outputs import by_hooks
from tests.models import contract

long = pytest.mark.long
TIMM = [
    "mobilenetv3_small_050",
    "vit_tiny_patch16_224",
    *(
        pytest.param(name, marks=long)
        for name in (
            "convnext_atto",
            "rexnet_100",
            "mobilenetv1_100",
            "efficientnet_b0",
            "resnest14d",
            "repvgg_a0",
            "hrnet_w18_small",
            "vgg16",
            "vgg19",
            "densenet121",
            "cspdarknet53",
            "swin_tiny_patch4_window7_224",
        )
    ),
]
# By torchvision's source, the last layer of strides 8, 16 and 32 outside of its classifier.
TORCHVISION = {
    "mobilenet_v3_small": [(24, "features.3"), (48, "features.8"), (576, "features.12")],
    "mobilenet_v3_large": [(40, "features.6"), (112, "features.12"), (960, "features.16")],
    "efficientnet_b0": [(40, "features.3"), (112, "features.5"), (1280, "features.8")],
    "densenet121": [(512, "features.denseblock2"), (1024, "features.denseblock3"), (1024, "features.norm5")],
    "vgg16": [(512, "features.22"), (512, "features.29"), (512, "features.30")],
}
TORCHVISION_NAMES = [
    "mobilenet_v3_small",
    *(pytest.param(name, marks=long) for name in ("mobilenet_v3_large", "efficientnet_b0", "densenet121", "vgg16")),
]


@cache
def built(kind: Callable[[str], Any], name: str) -> Any:
    torch.manual_seed(0)
    return kind(name)


def awake(backbone: Any) -> Any:
    """Without what a library starts at zero or gives in vain, so that every gradient can be seen.

    The last norm of a residual branch often starts at zero, and nothing before it learns in the first step. A bias
    right before a batch norm (rexnet's squeeze-and-excitation) never does.
    """
    with torch.no_grad():
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.weight.any():
                module.weight.fill_(1)
    for name, parameter in backbone.named_parameters():
        if type(backbone) is TimmBackbone and name.endswith("se.fc1.bias") and "features_" in name:
            parameter.requires_grad_(False)
    return backbone


def check(backbone: Any) -> None:
    torch.manual_seed(0)  # for stochastic depth, which may leave out a block for both images
    contract.check_all(awake(backbone))


def check_detector(backbone: Any) -> None:
    images = torch.rand(2, 3, 64, 64)
    for neck in (FPN, PAN):
        detector = Detector(backbone, lambda specs, neck=neck: neck(specs, 0.33), lambda specs: YOLOHead(specs, 2, 16))
        assert detector(images).logits.shape == (2, 64 + 16 + 4, 2)


@pytest.mark.parametrize("name", TORCHVISION_NAMES)
def test_torchvision_layers_are_found(name: str) -> None:
    specs = built(TorchvisionBackbone, name).out_specs
    assert [(spec.channels, spec.name) for spec in specs] == TORCHVISION[name]
    assert [spec.stride for spec in specs] == [8, 16, 32]


@pytest.mark.parametrize("name", TORCHVISION_NAMES)
def test_torchvision_backbone_keeps_the_contract(name: str) -> None:
    check(built(TorchvisionBackbone, name))
    check_detector(built(TorchvisionBackbone, name))


@pytest.mark.parametrize("name", TORCHVISION_NAMES)
def test_torchvision_names_and_features(name: str) -> None:
    """In vgg a ReLU works in place on what the layer before it gave."""
    backbone = built(TorchvisionBackbone, name).eval()
    network = models.get_model(name, weights=None).eval()
    missing = network.load_state_dict(backbone.state_dict(), strict=False)
    assert missing.unexpected_keys == [] and all("classifier" in key for key in missing.missing_keys)
    images = torch.rand(2, 3, 64, 96)
    wanted = by_hooks(network, [spec.name for spec in backbone.out_specs], images)
    with torch.no_grad():
        for feature, reference in zip(backbone(images), wanted, strict=True):
            torch.testing.assert_close(feature, reference, rtol=1e-5, atol=1e-5)


def test_torchvision_layers_may_be_named() -> None:
    backbone = TorchvisionBackbone("mobilenet_v3_small", layers=["features.3", "features.11"], out_levels=["P5"])
    assert backbone.out_specs == [FeatureSpec(96, 32, "features.11")]
    assert not any(name.startswith("features.12.") for name in backbone.state_dict())


def test_torchvision_agrees_with_the_reference(shared_reference: Path) -> None:
    reference = json.loads((shared_reference / "torchvision_features.json").read_text())
    for name in ("resnet18", "shufflenet_v2_x0_5"):
        nodes = {layer: tuple(values) for layer, values in reference[name]["nodes"].items() if values[1] >= 8}
        backbone = TorchvisionBackbone(name, layers=list(nodes), out_levels=list(nodes))
        assert {spec.name: (spec.channels, spec.stride) for spec in backbone.out_specs} == nodes
    found = TorchvisionBackbone("resnet18", out_levels=["P2", "P3", "P4", "P5"]).out_specs
    assert {s.name: [s.channels, s.stride] for s in found} == reference["resnet18"]["nodes"]


def test_torchvision_weights_are_those_of_the_model() -> None:
    published = built(TorchvisionBackbone, "mobilenet_v3_small").published
    assert published.names == ["IMAGENET1K_V1"]


@pytest.mark.parametrize("name", TIMM)
def test_timm_backbone_keeps_the_contract(name: str) -> None:
    check(built(TimmBackbone, name))
    check_detector(built(TimmBackbone, name))


@pytest.mark.parametrize("name", TIMM)
def test_timm_features_through_a_file(name: str, tmp_path: Path) -> None:
    """timm's own features_only model, saved by itself and put into ours."""
    backbone = built(TimmBackbone, name).eval()
    plain = backbone.pyramid is not None
    theirs: Any = timm.create_model(name, features_only=True, **backbone.published.options).eval()
    save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    weights = load_file(tmp_path / "weights.safetensors")
    missing = backbone.load_state_dict({f"network.{key}": value for key, value in weights.items()}, strict=False)
    assert all(key.startswith("pyramid.") for key in missing.missing_keys)
    images = torch.rand(2, 3, 64, 128)
    with torch.no_grad():
        ours, wanted = backbone(images), theirs(images)
    if plain:
        ours = [feature for feature, spec in zip(ours, backbone.out_specs, strict=True) if spec.stride == 16]
    for feature, reference in zip(ours, wanted, strict=True):
        same_order = reference.permute(0, 3, 1, 2) if "swin" in name else reference
        torch.testing.assert_close(feature, same_order, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("most", [1, pytest.param(None, marks=pytest.mark.long)])
def test_timm_agrees_with_the_reference(shared_reference: Path, most: int | None) -> None:
    reference = json.loads((shared_reference / "timm_features.json").read_text())
    for name, info in list(reference.items())[:most]:
        last = {}
        for module, channels, stride in zip(info["module"], info["channels"], info["reduction"], strict=True):
            last[stride] = FeatureSpec(channels, stride, module)
        backbone = TimmBackbone(name)
        assert backbone.out_specs == [last[8], last[16], last[32]], name
        assert [[s.channels, s.stride] for s in backbone.out_specs] == info["observed"][-3:], name
        preprocess = backbone.published.preprocess()
        assert torch.allclose(preprocess.mean.flatten(), torch.tensor(info["mean"])), name
        assert torch.allclose(preprocess.std.flatten(), torch.tensor(info["std"])), name
        assert set(info["tags"]) <= set(backbone.published.names), name


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", pytest.param("convnext_atto", marks=long)])
def test_timm_levels_are_chosen_and_deeper_stages_not_built(name: str) -> None:
    contract.check_out_levels(lambda **levels: TimmBackbone(name, **levels))
    shallow, deep = TimmBackbone(name, out_levels=["P3"]), built(TimmBackbone, name)
    assert len(shallow.state_dict()) < len(deep.state_dict())
    assert contract.silent_parameters(shallow) == list(dict(shallow.named_parameters()))
    contract.check_every_parameter_learns(shallow)


@pytest.mark.slow
def test_what_timm_builds_in_vain_is_frozen() -> None:
    """HRNet mixes all branches at its end, also those for levels that nobody wants."""
    frozen = {n for n, p in TimmBackbone("hrnet_w18_small").named_parameters() if not p.requires_grad}
    assert frozen and all(n.startswith(("network.incre_modules.0.", "network.stage4.0.fuse_layers.0.")) for n in frozen)


def test_timm_tags() -> None:
    published = built(TimmBackbone, "mobilenetv3_small_050").published
    assert published.names == ["lamb_in1k"]
    chosen = TimmBackbone("vit_tiny_patch16_224.augreg_in21k", out_levels=["P4"]).published
    assert chosen.names == ["augreg_in21k", "augreg_in21k_ft_in1k"]
    assert TimmBackbone("vit_tiny_patch16_224").published.names[0] == "augreg_in21k_ft_in1k"
    torch.testing.assert_close(chosen.preprocess().mean.flatten(), torch.full((3,), 0.5))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """timm's cache, empty, on a machine without network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_timm_weights_come_from_its_cache(hub: Path) -> None:
    repository = hub / "models--timm--mobilenetv3_small_050.lamb_in1k"
    commit = "0" * 40
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    classifier = timm.create_model("mobilenetv3_small_050").state_dict()
    save_file(classifier, repository / "snapshots" / commit / "model.safetensors")

    backbone = TimmBackbone("mobilenetv3_small_050", out_levels=["P3", "P4"])
    weights = backbone.published.fetch("lamb_in1k")
    assert weights.keys() == backbone.state_dict().keys()
    assert all(torch.equal(value, classifier[key.removeprefix("network.")]) for key, value in weights.items())


def test_timm_weights_are_not_to_be_had(hub: Path) -> None:
    assert not list(hub.iterdir())
    published = built(TimmBackbone, "mobilenetv3_small_050").published
    where = (
        r"fetch model.safetensors of the Hugging Face repository timm/mobilenetv3_small_050.lamb_in1k, .* weights=PATH"
    )
    with pytest.raises(WeightsUnavailableError, match=where):
        published.fetch("lamb_in1k")


def tiny_vit() -> nn.Module:
    return models.VisionTransformer(image_size=32, patch_size=16, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TimmBackbone("convnext_tinny"), "timm has no network 'convnext_tinny'; did you mean 'convnext_tiny"),
        (
            lambda: TimmBackbone("convnext_atto.d2_in2k"),
            "no weights 'd2_in2k' of convnext_atto; did you mean 'd2_in1k'",
        ),
        (lambda: TimmBackbone("convnext_atto", ["P1"]), r"no level or layer P1; .* P2 \(stages.0, 40 channels\)"),
        (lambda: TimmBackbone("vit_tiny_patch16_224", ["P7"]), r"P7; .* P2 \(pyramid.levels.P2, 48 channels\)"),
        (lambda: TimmBackbone("vit_small_patch14_dinov2"), "vit_small_patch14_dinov2 have strides 14, which must"),
        (lambda: TorchvisionBackbone("vg16"), "torchvision has no classifier 'vg16'; did you mean 'vgg16"),
        (lambda: TorchvisionBackbone("mobilenet_v3_small", ["features.33"]), "'features.33'; did you mean 'features.3"),
        (lambda: TorchvisionBackbone("mobilenet_v3_small", out_levels=["P6"]), r"P6; .* P5 \(features.12, 576"),
        (lambda: find_layers(tiny_vit()), "VisionTransformer takes only images of one size .*TimmBackbone"),
    ],
)
def test_what_is_not_there_is_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_timm_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r'not installed: in the clone, pip install -e "\.\[timm\]"$'):
        TimmBackbone("resnet18")


@pytest.mark.slow
def test_the_rest_works_without_timm() -> None:
    code = "import sys; sys.modules['timm'] = None; from detkit.models.backbones import *; ResNet(depth=18)"
    subprocess.run([sys.executable, "-c", code], check=True)
