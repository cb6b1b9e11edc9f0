"""Weights of a backbone alone: torchvision's and timm's names, prefixes, flattened names, published ones by name."""

import copy
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.transforms.v2 import functional as F

from detkit.data.images.decode import decode_image
from detkit.errors import CheckpointError
from detkit.models import Detector, Preprocess
from detkit.models.backbones import CSPDarknet, ResNet, ShuffleNetV2, TimmBackbone
from detkit.models.heads import YOLOHead
from detkit.models.necks import FPN
from detkit.weights import load_weights
from detkit.weights.align import align

IMAGENET = "RGB, 0..1, mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225]"


def detector(backbone: Any = None, preprocess: Preprocess | None = None) -> Detector:
    neck, head = partial(FPN, channels=[8, 8, 8], depth_multiple=0.1), partial(YOLOHead, num_classes=2)
    return Detector(backbone or ResNet(18), neck, head, preprocess)


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    """torchvision's, with statistics as if trained."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return network.eval()


def lightning(weights: dict[str, Tensor]) -> dict[str, Any]:
    return {"epoch": 3, "state_dict": {f"model.encoder.{name}": tensor for name, tensor in weights.items()}}


def ddp(weights: dict[str, Tensor]) -> dict[str, Any]:
    return {"model": {f"module.{name}": tensor for name, tensor in weights.items()}, "lr": 0.1}


@pytest.mark.kernels
@pytest.mark.parametrize("wrap", [dict, lightning, ddp], ids=["bare", "lightning", "ddp"])
def test_torchvision_file_gives_torchvision_features_of_an_image_file(
    resnet: nn.Module, tmp_path: Path, wrap: Any
) -> None:
    """From the file of the picture on: decoder, preprocessing that came with the weights, backbone; in float64."""
    torch.save(wrap(resnet.state_dict()), tmp_path / "resnet18.pth")
    model = detector().eval()
    report = load_weights(tmp_path / "resnet18.pth", model)
    model = model.double()
    assert f"images: {IMAGENET} (as the published weights of this backbone; check it)" in str(report)
    assert "backbone 100 of 100, neck 0 of " in str(report)
    assert [name.rpartition(".")[2] for name in report.unexpected] == ["weight", "bias"]  # of fc

    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    ours = torch.from_numpy(decode_image(tmp_path / "image.png")).permute(2, 0, 1)[None].double() / 255
    theirs = F.to_dtype(F.pil_to_tensor(Image.open(tmp_path / "image.png")), torch.float64, scale=True)[None]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # as float32 holds them
    theirs = F.normalize(theirs, mean.tolist(), std.tolist())
    with torch.no_grad():
        expected = create_feature_extractor(copy.deepcopy(resnet).double(), ["layer2", "layer3", "layer4"])(theirs)
        features = model.backbone(model.preprocess(ours))
    for feature, other in zip(features, expected.values(), strict=True):
        torch.testing.assert_close(feature, other, rtol=1e-10, atol=1e-10)


def test_safetensors_and_a_classifier_layer_left_out_by_name(resnet: nn.Module, tmp_path: Path) -> None:
    safetensors.torch.save_file(resnet.state_dict(), tmp_path / "resnet18.safetensors")
    report = load_weights(tmp_path / "resnet18.safetensors", detector(), leave_out=["fc.*"])
    assert report.unexpected == ()
    assert "loaded 100 of " in str(report)


def test_fewer_levels_take_what_they_need(resnet: nn.Module) -> None:
    model = Detector(
        ResNet(18, out_levels=["P3", "P4"]), partial(FPN, depth_multiple=0.1), partial(YOLOHead, num_classes=2)
    )
    report = load_weights(resnet.state_dict(), model)
    assert not [name for name in report.missing if name.startswith("backbone.")]
    assert any(name.startswith("layer4.") for name in report.unexpected)


@pytest.mark.parametrize("own", ["flat", "nested"])
def test_flattened_and_nested_names_are_the_same(own: str) -> None:
    nested = {
        "blocks.0.conv_dw.weight": torch.zeros(2),
        "blocks.0.1.bn1.weight": torch.ones(3),
        "stem.w": torch.ones(1),
    }
    flat = {name.replace("blocks.0.", "blocks_0."): tensor for name, tensor in nested.items()}
    file, model = (nested, flat) if own == "flat" else (flat, nested)
    model = {f"backbone.network.{name}": tensor for name, tensor in model.items()}
    aligned = align({f"module.{name}": tensor for name, tensor in file.items()}, {**model, "neck.w": torch.ones(1)})
    assert aligned.keys() == model.keys()
    assert all(torch.equal(aligned[name], tensor) for name, tensor in model.items())


def test_names_that_a_dot_tells_apart_stay_apart() -> None:
    own = {"a_b": torch.zeros(1), "a.b": torch.ones(1)}
    assert align({name: tensor + 5 for name, tensor in own.items()}, own) == {
        "a_b": torch.tensor([5.0]),
        "a.b": torch.tensor([6.0]),
    }


@pytest.mark.parametrize(
    "backbone", [CSPDarknet(0.33, 0.25), ShuffleNetV2("x0_5"), ResNet(34)], ids=["csp", "shuffle", "r34"]
)
def test_weights_of_another_network_are_refused_and_change_nothing(resnet: nn.Module, backbone: nn.Module) -> None:
    model = detector(backbone)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"(?s)another network: \d+ tensors of the backbone.*weights_except"):
        load_weights(resnet.state_dict(), model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_may_begin_untrained_is_said(resnet: nn.Module) -> None:
    weights = resnet.state_dict()
    weights["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    with pytest.raises(CheckpointError, match=r"(?s)1 tensors of the backbone.*\[backbone\.conv1\.weight\]"):
        load_weights(weights, detector())
    report = load_weights(weights, detector(), leave_out=["backbone.conv1.weight"])
    assert report.left_out == ("backbone.conv1.weight",)


def test_a_name_to_leave_out_must_be_there(resnet: nn.Module) -> None:
    with pytest.raises(CheckpointError, match=r"weights_except: 'fx\.\*' matches nothing in state_dict"):
        load_weights(resnet.state_dict(), detector(), leave_out=["fx.*"])


def test_the_recipe_may_know_better_of_a_file_that_does_not_say(resnet: nn.Module) -> None:
    model = detector(preprocess=Preprocess(std=(0.5, 0.5, 0.5)))
    report = load_weights(resnet.state_dict(), model)
    assert "std [0.5, 0.5, 0.5] (of the recipe)" in str(report)


def test_a_backbone_that_nobody_published_keeps_what_the_recipe_says() -> None:
    weights = CSPDarknet(0.33, 0.25).state_dict()
    report = load_weights(weights, detector(CSPDarknet(0.33, 0.25)))
    assert "images: RGB, 0..1 (of the recipe; unknown for the file)" in str(report)


class Offline:
    """No network: every download fails as it does without one."""

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise URLError("no network here")


@pytest.mark.parametrize("name", ["IMAGENET1K_V1", "DEFAULT"])
def test_published_weights_by_name(
    resnet: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """From the cache of torch, where they lie under torchvision's own file name."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", Offline())
    enum = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    file = tmp_path / "hub" / "checkpoints" / enum.url.rpartition("/")[2]
    with pytest.raises(
        CheckpointError, match=rf"weights={name}: IMAGENET1K_V1 of resnet18 .*{file.name}.*{file.parent}"
    ):
        load_weights(name, detector())
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(resnet.state_dict(), file)
    model = detector(preprocess=Preprocess("bgr", 255.0))
    report = load_weights(name, model)
    assert f"images: {IMAGENET} (as these weights were trained)" in str(report)
    assert torch.equal(model.state_dict()["backbone.conv1.weight"], resnet.state_dict()["conv1.weight"])


def test_published_weights_misspelt() -> None:
    with pytest.raises(CheckpointError, match="did you mean 'IMAGENET1K_V1'"):
        load_weights("IMAGENET1K_V2", detector())
    with pytest.raises(CheckpointError, match="IMAGENET1K_V1: no such file"):
        load_weights("IMAGENET1K_V1", detector(CSPDarknet(0.33, 0.25)))


def test_a_folder_misspelt_where_weights_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_run").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"my_rnu: neither a file nor published .* did you mean 'my_run'"):
        load_weights("my_rnu", detector())


@pytest.mark.parametrize(
    "name", ["convnext_atto", "mobilenetv3_small_050", "resnet18d", "regnetx_002", "vit_tiny_patch16_224"]
)
def test_a_timm_classifier_file_gives_timm_features(tmp_path: Path, name: str) -> None:
    """As timm saves it: names nested where the backbone's are flat, and the classifier's last layer with them."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"dynamic_img_size": True} if "vit" in name else {}
    network = timm.create_model(name, **options).eval()
    safetensors.torch.save_file(network.state_dict(), tmp_path / "model.safetensors")
    backbone = TimmBackbone(name, ["P3", "P4"])
    model = Detector(backbone, partial(FPN, depth_multiple=0.1), partial(YOLOHead, num_classes=2)).eval()
    report = load_weights(tmp_path / "model.safetensors", model)
    assert "(as the published weights of this backbone; check it)" in report.images
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    network, backbone = network.double(), backbone.double()
    with torch.no_grad():
        maps = network.forward_intermediates(images, intermediates_only=True)  # type: ignore[operator]
        feature = backbone(images)[1]
    [expected] = [m for m in maps[-1:] if "vit" in name] or [m for m in maps if m.shape[-2:] == feature.shape[-2:]][-1:]
    torch.testing.assert_close(feature, expected, rtol=1e-10, atol=1e-10)
