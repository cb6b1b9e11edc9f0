from pathlib import Path

import pytest

from detkit.models.backbones import ShuffleNetV2
from tests.models.torchvision_parity import check_equals_torchvision

EVERY = ["conv1", "maxpool", "stage2", "stage3", "stage4"]


@pytest.mark.parametrize("width", ["x0_5", "x1_0", "x1_5", "x2_0"])
def test_equals_torchvision(width: str, tmp_path: Path) -> None:
    backbone = ShuffleNetV2(width, out_levels=EVERY)  # type: ignore[arg-type]
    check_equals_torchvision(backbone, f"shufflenet_v2_{width}", tmp_path)


def test_levels() -> None:
    specs = ShuffleNetV2("x2_0").out_specs
    assert [(s.level, s.channels, s.name) for s in specs] == [
        ("P3", 244, "stage2"),
        ("P4", 488, "stage3"),
        ("P5", 976, "stage4"),
    ]
    assert [s.name for s in ShuffleNetV2(out_levels=["P1", "P2"]).out_specs] == ["conv1", "maxpool"]


def test_deeper_stages_are_not_built() -> None:
    assert [name for name, _ in ShuffleNetV2(out_levels=["P3"]).named_children()] == ["conv1", "maxpool", "stage2"]


def test_published_weights_are_torchvisions() -> None:
    published = ShuffleNetV2("x0_5").published
    assert published is not None
    assert published.names == ["IMAGENET1K_V1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": "x3_0"}, "x0_5, x1_0, x1_5, x2_0; got 'x3_0'"),
        (
            {"out_levels": ["P6"]},
            r"no level or layer P6; this network has P1 \(conv1, 24 channels\), .*P5 \(stage4, 46",
        ),
        ({"out_levels": ["conv5"]}, "no level or layer conv5"),
        ({"out_levels": []}, "no level or layer named"),
        ({"out_levels": ["P3", "stage2"]}, "P3, stage2 name the same map twice"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShuffleNetV2(**arguments)
