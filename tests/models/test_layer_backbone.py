"""Backbones of any network by layer names, against hooks on the network itself."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from detkit import recipe
from detkit.models import Detector
from detkit.models.backbones import LayerBackbone
from detkit.models.heads import YOLOHead
from detkit.models.necks import FPN, PAN
from tests.helpers.layer_outputs import by_hooks
from tests.models import contract
from tests.models.user_backbones import Awkward, Branching, OneSequential, StageAttributes

LAYERS = ["layer2", "layer3", "layer4"]
DEEP_LAYERS = ["features.5", "features.7", "features.9"]
IN_PACKAGE = "tests.models.user_backbones"
NODES: dict[str, dict[str, Any]] = {
    "attributes": {
        "_target_": "detkit.models.backbones.LayerBackbone",
        "network": {"_target_": f"{IN_PACKAGE}.StageAttributes", "width": 8},
        "layers": LAYERS,
    },
    "one_sequential": {
        "_target_": "detkit.models.backbones.LayerBackbone",
        "network": {"_target_": f"{IN_PACKAGE}.OneSequential"},
        "layers": DEEP_LAYERS,
    },
    "parallel_branches": {"_target_": f"{IN_PACKAGE}.ParallelBranches"},
}


@pytest.mark.parametrize("name", NODES)
def test_recipe_names_a_user_network_and_it_keeps_the_contract(name: str) -> None:
    contract.check_all(recipe.instantiate(NODES[name], trusted=None))


@pytest.mark.parametrize("neck", [FPN, PAN])
@pytest.mark.parametrize("name", NODES)
def test_detector_of_a_user_network(name: str, neck: Any) -> None:
    detector = Detector(recipe.instantiate(NODES[name], trusted=None), neck, lambda specs: YOLOHead(specs, 2))
    points = detector(torch.rand(2, 3, 64, 64)).points
    assert points.reshape(-1, 2).mean(0).tolist() == [32, 32]  # cells of every level lie evenly in the image
    assert points[[0, 64, 80]].tolist() == [[4, 4], [8, 8], [16, 16]]  # the first of strides 8, 16 and 32


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        (StageAttributes(), ["stem", "layer1.0", *LAYERS]),
        (OneSequential(), DEEP_LAYERS),
        (OneSequential(), ["features.4", "features.6", "features.8"]),  # which a ReLU overwrites in place
    ],
)
def test_features_are_those_of_the_network(network: nn.Module, layers: list[str]) -> None:
    backbone = LayerBackbone(network, layers).eval()
    images = torch.rand(2, 3, 224, 224)
    for feature, wanted in zip(backbone(images), by_hooks(network.eval(), layers, images), strict=True):
        torch.testing.assert_close(feature, wanted, rtol=1e-5, atol=1e-5)


def test_overwritten_map_keeps_its_gradient() -> None:
    contract.check_every_parameter_learns(LayerBackbone(OneSequential(), ["features.4", "features.6", "features.8"]))


def test_tensors_keep_their_names_and_the_rest_is_left_out() -> None:
    network = StageAttributes()
    names = set(LayerBackbone(network, LAYERS, out_levels=["P3", "P4"]).state_dict())
    dropped = {name for name in network.state_dict() if name.startswith(("layer4.", "head."))}
    assert names == set(network.state_dict()) - dropped


def test_levels_are_chosen_and_layers_come_finest_first() -> None:
    backbone = LayerBackbone(StageAttributes(), ["layer4", "layer2", "layer3"], out_levels=["P5", "layer2"])
    assert [(spec.name, spec.stride, spec.channels) for spec in backbone.out_specs] == [
        ("layer2", 8, 16),
        ("layer4", 32, 32),
    ]
    torch.manual_seed(0)
    network = StageAttributes()
    contract.check_out_levels(lambda out_levels=None: LayerBackbone(network, LAYERS, out_levels))


def test_building_changes_nothing_in_the_network() -> None:
    network = StageAttributes().train()
    network.layer1.eval()
    before = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    LayerBackbone(network, LAYERS)
    assert [module.training for module in network.modules()] == modes
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


def test_training_is_another_graph_than_evaluation() -> None:
    backbone = LayerBackbone(StageAttributes(), ["layer1", "layer2"])
    images = torch.rand(2, 3, 64, 64)
    fine = [backbone.train()(images)[1] for _ in range(2)]
    assert not torch.equal(*fine), "dropout works in training"
    fine = [backbone.eval()(images)[1] for _ in range(2)]
    assert torch.equal(*fine)


def test_a_copy_is_a_backbone_of_its_own() -> None:
    """As the moving average of the weights needs it."""
    backbone = LayerBackbone(StageAttributes(), LAYERS).eval()
    twin = copy.deepcopy(backbone)
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(twin(images), backbone(images))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert not twin(images)[0].any() and backbone(images)[0].any()
    assert twin.train()(images)[0].shape == (2, 16, 8, 8)


@pytest.mark.parametrize(
    ("network", "layers", "message"),
    [
        (
            StageAttributes(),
            ["layer5"],
            r"no layer 'layer5'; did you mean 'layer4', .*; at the top it has stem, layer1",
        ),
        (StageAttributes(), ["qqq"], r"StageAttributes has no layer 'qqq'; at the top it has stem"),
        (StageAttributes(), [], "each wanted layer once, at least one; got none"),
        (StageAttributes(), ["layer2", "layer2"], "once, at least one; got layer2, layer2"),
        (Awkward(), ["conv"], r"conv gives \(1, 4, 63, 95\) .* a stride of 2.03175 x 2.02105"),
        (Awkward(), ["pool"], r"pool gives \(1, 4, 7, 7\) .* a stride of 18.2857 x 27.4286"),
        (Awkward(), ["flat"], r"flat gives \(1, 196\), no map"),
        (Awkward(), ["pair"], "pair gives a tuple, no map"),
        (Awkward(), ["twice", "twice_deep"], "twice runs more than once"),
        (Awkward(), ["twice_deep"], "twice_deep of Awkward runs more than once, or does not return"),
        (Awkward(), ["unused"], "unused of Awkward never runs"),
        (Branching(), ["layer"], r"Branching cannot be traced \(TraceError: .*README, Another backbone"),
    ],
)
def test_what_cannot_be_used_is_named(network: nn.Module, layers: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerBackbone(network, layers)


def test_level_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"no level or layer P6; .* P3 \(layer2, 16 channels\)"):
        LayerBackbone(StageAttributes(), LAYERS, out_levels=["P6"])
