"""Stages of all backbones, against the structure that their papers describe."""

import pytest
from torch import nn

from detkit.errors import RecipeError
from detkit.models.backbones import CSPDarknet
from detkit.training.optim.stages import stages_of
from detkit.types import FeatureSpec
from tests.training.optim.staged import TinyBackbone


class Holder(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone


def modules_of(backbone: nn.Module) -> list[tuple[str, ...]]:
    """Of each stage, without the backbone's own name; every parameter is in one stage."""
    stages = stages_of(Holder(backbone), "freeze=0")
    names = [name for stage in stages for name in stage.parameters]
    assert sorted(names) == sorted(f"backbone.{name}" for name, _ in backbone.named_parameters())
    return [tuple(module.removeprefix("backbone.") for module in stage.modules) for stage in stages]


def conv(norm: bool = True) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 4, 1), *([nn.BatchNorm2d(4)] if norm else []), nn.ReLU())


def described(out_names: list[str], **children: nn.Module) -> nn.Module:
    backbone = nn.Module()
    for name, child in children.items():
        backbone.add_module(name, child)
    backbone.out_specs = [FeatureSpec(4, 8, name) for name in out_names]  # type: ignore[assignment]
    return backbone


def test_a_convolution_and_its_norm_are_one_stage() -> None:
    assert modules_of(TinyBackbone()) == [("conv1", "bn1"), ("layer1",), ("layer2",)]


def test_items_of_a_module_list() -> None:
    stages = modules_of(CSPDarknet(0.33, 0.125))
    assert stages == [("stem",), ("stages.0",), ("stages.1",), ("stages.2",), ("stages.3",)]


def test_stages_in_a_sequential_that_the_maps_are_named_by() -> None:
    """As timm's EfficientNet, whose blocks.2 and blocks.3 come out."""
    blocks = nn.Sequential(conv(), conv(), conv(), conv())
    backbone = described(["blocks.2", "blocks.3"], conv_stem=nn.Conv2d(3, 4, 1), bn1=nn.BatchNorm2d(4), blocks=blocks)
    assert modules_of(backbone) == [("conv_stem", "bn1"), *((f"blocks.{number}",) for number in range(4))]


def test_single_layers_up_to_the_map_that_comes_out() -> None:
    """As timm's VGG, a row of convolutions."""
    layers = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(5)))
    backbone = described(["features.1", "features.3"], features=layers)
    stages = [("features.0", "features.1"), ("features.2", "features.3"), ("features.4",)]
    assert modules_of(backbone) == stages


def test_a_norm_belongs_to_what_it_follows() -> None:
    """As the norm after the deep stem of ResNet-D."""
    backbone = described(["layer1"], conv1=conv(), bn1=nn.BatchNorm2d(4), act1=nn.ReLU(), layer1=conv())
    assert modules_of(backbone) == [("conv1", "bn1"), ("layer1",)]


def test_a_wrapped_network() -> None:
    body = described([], stem=conv(), layers=nn.Sequential(conv(), conv()))
    backbone = described(["body.layers.1"], body=body)
    assert modules_of(backbone) == [("body.stem",), ("body.layers.0",), ("body.layers.1",)]


def test_what_all_maps_come_out_of_is_last() -> None:
    """As the pyramid on a plain vision transformer, whose blocks no map is named by."""
    body = described([], patches=nn.Conv2d(3, 4, 1), blocks=nn.Sequential(conv(), conv()), norm=nn.LayerNorm(4))
    backbone = described(
        ["pyramid.P3", "pyramid.P4"], pyramid=nn.ModuleDict({"P3": conv()}), network=nn.ModuleDict({"model": body})
    )
    stages = [("model.patches",), ("model.blocks.0",), ("model.blocks.1", "model.norm")]
    assert modules_of(backbone) == [*(tuple(f"network.{name}" for name in names) for names in stages), ("pyramid",)]


def test_timms_names_of_layers_in_a_row() -> None:
    """timm writes features_1 for what its maps call features.1."""
    layers = {f"features_{number}": nn.Conv2d(4, 4, 1) for number in range(3)}
    assert modules_of(described(["features.1"], **layers)) == [("features_0", "features_1"), ("features_2",)]


def test_a_backbone_without_parameters_in_modules() -> None:
    backbone = nn.Module()
    backbone.weight = nn.Parameter(nn.Linear(1, 1).weight.detach())
    assert modules_of(backbone) == [("backbone",)]


def test_what_no_child_holds_is_the_stems() -> None:
    backbone = described(["blocks.1"], patches=nn.Conv2d(3, 4, 1), blocks=nn.ModuleList([conv(), conv()]))
    backbone.register_parameter("positions", nn.Parameter(nn.Conv2d(1, 1, 1).weight.detach()))
    assert stages_of(Holder(backbone), "")[0].parameters == (
        "backbone.positions",
        "backbone.patches.weight",
        "backbone.patches.bias",
    )


def test_needs_a_backbone() -> None:
    model = nn.Module()
    model.body, model.head = nn.Linear(1, 1), nn.Linear(1, 1)
    with pytest.raises(RecipeError, match="freeze=2 needs a model with a backbone; Module has body, head"):
        stages_of(model, "freeze=2")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", [("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)]),
        ("convnext_atto", [("stem_0", "stem_1"), ("stages_0",), ("stages_1",), ("stages_2",), ("stages_3",)]),
        ("mobilenetv3_small_050", [("conv_stem", "bn1"), *((f"blocks.{number}",) for number in range(6))]),
        ("repvgg_a0", [("stem",), ("stages_0",), ("stages_1",), ("stages_2",), ("stages_3",)]),
    ],
)
def test_timms_networks(name: str, expected: list[tuple[str, ...]]) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model(name, features_only=True)
    network.out_specs = [FeatureSpec(1, 1, module) for module in network.feature_info.module_name()]
    assert modules_of(network) == expected
