from functools import partial

import pytest
import torch

from detkit.layers.conv import SPPF
from detkit.layers.csp import Bottleneck
from detkit.models.backbones import CSPDarknet

tiny = partial(CSPDarknet, depth_multiple=0.33, width_multiple=0.25)


def test_every_level_has_its_layer() -> None:
    every = tiny(out_levels=["P1", "P2", "P3", "P4", "P5", "P6"]).out_specs
    assert [(s.level, s.stride, s.channels, s.name) for s in every] == [
        ("P1", 2, 16, "stem"),
        ("P2", 4, 32, "stages.0"),
        ("P3", 8, 64, "stages.1"),
        ("P4", 16, 128, "stages.2"),
        ("P5", 32, 256, "stages.3"),
        ("P6", 64, 256, "stages.4"),
    ]
    assert [s.level for s in tiny().out_specs] == ["P3", "P4", "P5"]


@pytest.mark.parametrize(
    ("coarsest", "stages", "with_pool"), [("P1", 0, []), ("P4", 3, []), ("P5", 4, [3]), ("P6", 5, [4])]
)
def test_the_full_networks_last_stage_pools_and_has_no_shortcuts(
    coarsest: str, stages: int, with_pool: list[int]
) -> None:
    backbone = tiny(out_levels=[coarsest])
    kinds = [list(stage.modules()) for stage in backbone.stages]
    assert len(kinds) == stages
    assert [i for i, modules in enumerate(kinds) if any(isinstance(m, SPPF) for m in modules)] == with_pool
    plain = [i for i, modules in enumerate(kinds) if any(isinstance(m, Bottleneck) and not m.shortcut for m in modules)]
    assert plain == with_pool


def test_asking_for_other_levels_draws_the_same_weights() -> None:
    """So a seed gives the same network, whichever of its maps come out."""
    weights = []
    for levels in (["P3", "P4", "P5"], ["P2", "P5"], ["P4"]):
        torch.manual_seed(0)
        weights.append(tiny(out_levels=levels).state_dict())
    usual, with_p2, without_p5 = weights
    assert usual.keys() == with_p2.keys() > without_p5.keys()
    assert all(torch.equal(usual[name], with_p2[name]) for name in usual)
    assert all(torch.equal(usual[name], without_p5[name]) for name in without_p5)


@pytest.mark.parametrize("units", [1, 3])
def test_the_sixth_stage_has_one_unit_of_depth(units: int) -> None:
    """As the fifth has: a unit is three bottlenecks at depth_multiple 1."""
    stages = CSPDarknet(depth_multiple=units / 3, width_multiple=0.125, out_levels=["P6"]).stages
    assert [sum(isinstance(m, Bottleneck) for m in stage.modules()) for stage in stages] == [
        units * depth for depth in (1, 3, 3, 1, 1)
    ]


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (["P7"], r"no level or layer P7; this network has P1 \(stem, 16 channels\), .* P6 \(stages.4, 256 channels\)"),
        (["stages.5", "P3"], "no level or layer stages.5;"),
        ([], "no level or layer named"),
        (["P3", "stages.1"], "P3, stages.1 name the same map twice"),
    ],
)
def test_wrong_levels_are_named(levels: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(out_levels=levels)
