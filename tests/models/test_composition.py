"""A detector of a user's parts: what is wrong in them is said in one line that names the part."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detkit.errors import RecipeError
from detkit.models import Detector
from detkit.models.heads import YOLOHead
from detkit.models.necks import PAN
from detkit.types import FeatureSpec

TRUE_SPECS = [FeatureSpec(8, 8), FeatureSpec(8, 16)]


class Backbone(nn.Module):
    """Maps of 8 channels and strides 8 and 16, whatever its specs say."""

    out_specs: Any

    def __init__(self, out_specs: object = None) -> None:
        super().__init__()
        if out_specs is not None:
            self.out_specs = out_specs
        self.stem = nn.Conv2d(3, 8, 8, stride=8)
        self.stage = nn.Conv2d(8, 8, 2, stride=2)

    def forward(self, images: Tensor) -> Any:
        fine = self.stem(images)
        return [fine, self.stage(fine)]


class OneMap(Backbone):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images)[0]


class Neck(nn.Module):
    """Gives the maps as they came, whatever its specs say."""

    out_specs: Any

    def __init__(self, out_specs: object = None) -> None:
        super().__init__()
        if out_specs is not None:
            self.out_specs = out_specs

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return maps


def detector_of(backbone: nn.Module, neck: Callable[..., nn.Module] = PAN) -> Detector:
    parts: Any = {"backbone": backbone, "neck": neck}
    return Detector(**parts, head=lambda specs: YOLOHead(specs, 2))


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (None, r"^backbone Backbone has no out_specs, which must be a list of FeatureSpec\(channels, stride\)"),
        ([], r"^backbone Backbone: out_specs must be a list of FeatureSpec.*; got \[\]$"),
        ([(8, 8), (8, 16)], r"^backbone Backbone: out_specs must be .*; got \[\(8, 8\), \(8, 16\)\]$"),
        (TRUE_SPECS[0], r"^backbone Backbone: out_specs must be .*; got FeatureSpec\(channels=8, stride=8, name=''\)$"),
    ],
)
def test_specs_that_are_none(specs: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detector_of(Backbone(specs))


def test_a_neck_without_specs() -> None:
    with pytest.raises(ValueError, match=r"^neck Neck has no out_specs"):
        detector_of(Backbone(TRUE_SPECS), lambda _: Neck())


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (
            Backbone([FeatureSpec(8, 8), FeatureSpec(16, 16)]),
            r"Backbone returns \[\(2, 8, 8, 16\), \(2, 8, 4, 8\)\], .* describe \[\(2, 8, 8, 16\), \(2, 16, 4, 8\)\]",
        ),
        (Backbone([FeatureSpec(8, 16), FeatureSpec(8, 32)]), r"describe \[\(2, 8, 4, 8\), \(2, 8, 2, 4\)\] for images"),
        (Backbone(TRUE_SPECS[:1]), r"returns \[.*, .*\], but its out_specs \[FeatureSpec\(8, 8\)\] describe"),
        (OneMap(TRUE_SPECS), r"^model\.backbone: OneMap returns a Tensor, no list of maps, but"),
    ],
    ids=["channels", "strides", "a map more", "no list"],
)
def test_specs_that_are_false(backbone: Backbone, message: str) -> None:
    """Strides alone would raise no error anywhere: every box would be moved."""
    detector = detector_of(backbone)
    with pytest.raises(RecipeError, match=message):
        detector(torch.zeros(2, 3, 64, 128))


def test_a_neck_with_false_specs() -> None:
    detector = detector_of(Backbone(TRUE_SPECS), lambda specs: Neck(specs[::-1]))
    with pytest.raises(
        RecipeError, match=r"^model\.neck: Neck returns .* \[FeatureSpec\(8, 16\), FeatureSpec\(8, 8\)\]"
    ):
        detector(torch.zeros(1, 3, 64, 64))


def test_true_specs() -> None:
    predictions = detector_of(Backbone(TRUE_SPECS))(torch.zeros(1, 3, 64, 96))
    assert predictions.strides.tolist() == [8] * 96 + [16] * 24
