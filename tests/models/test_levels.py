import pytest

from detkit.models.backbones.levels import OUT_LEVELS, choose_levels
from detkit.types import FeatureSpec

STEM, POOL, FINE, COARSE, VECTOR = AVAILABLE = (
    FeatureSpec(8, 2, "stem"),
    FeatureSpec(8, 4, "pool"),
    FeatureSpec(16, 4, "blocks.0"),
    FeatureSpec(32, 8, "blocks.1"),
    FeatureSpec(64, 0, "mean"),
)


@pytest.mark.parametrize(
    ("wanted", "specs"),
    [
        (["P1"], [STEM]),
        (["P2"], [FINE]),  # of two maps with stride 4, the one that has gone through more layers
        (["pool"], [POOL]),
        (["pool", "P2"], [POOL, FINE]),
        (["P3", "stem"], [STEM, COARSE]),  # in the order of the network, whatever the order of the wish
        (("blocks.1", "mean"), [COARSE, VECTOR]),
    ],
)
def test_levels_and_names_choose_maps(wanted: list[str], specs: list[FeatureSpec]) -> None:
    assert [AVAILABLE[position] for position in choose_levels(AVAILABLE, wanted)] == specs


def test_a_name_wins_over_a_level() -> None:
    """A library's layer may be called like a level."""
    specs = [FeatureSpec(8, 8, "P4"), FeatureSpec(8, 16, "P5")]
    assert choose_levels(specs, ["P4"]) == [0]


def test_usual_levels() -> None:
    assert tuple(FeatureSpec(1, stride).level for stride in (8, 16, 32)) == OUT_LEVELS


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["P2", "P6", "x"], r"no level or layer P6, x; this network has P1 \(stem, 8 channels\), P2 \(pool, 8 ch"),
        ([], "out_levels: no level or layer named; this network has"),
        (["P2", "blocks.0"], "P2, blocks.0 name the same map twice"),
        (["stem", "stem"], "stem, stem name the same map twice"),
    ],
)
def test_wrong_levels_are_named(wanted: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_levels(AVAILABLE, wanted)
