"""The settings of augmentation: their ranges, and where the mosaic ends."""

import math
import re
from typing import Any

import pytest

from detkit.data.augment import Augmentation, ClassAugmentation

WRONG: list[tuple[type[Augmentation | ClassAugmentation], dict[str, Any], list[str]]] = [
    (Augmentation, {"mosaic_probability": 1.5}, ["mosaic_probability must lie in [0, 1]; got 1.5"]),
    (Augmentation, {"saturation": -0.1}, ["saturation must lie in [0, 1]; got -0.1"]),
    (Augmentation, {"brightness": math.nan}, ["brightness must lie in [0, 1]; got nan"]),
    (Augmentation, {"degrees": 200, "shear": 61}, ["degrees must lie in [0, 180]; got 200", "shear must", "[0, 60]"]),
    (Augmentation, {"min_box_px": -1}, ["min_box_px must lie in [0, inf]; got -1"]),
    (Augmentation, {"close_mosaic_epochs": -3}, ["close_mosaic_epochs must be at least 0; got -3"]),
    (Augmentation, {"scale": (1.5, 0.5)}, ["scale must be the smallest and the largest", "above 0; got [1.5, 0.5]"]),
    (
        Augmentation,
        {"zoom_out_probability": 0.5, "mixup_probability": 0, "photometric_probability": -1},
        ["photometric_probability must", "got -1; zoom_out_probability", "mosaic_probability 1 there are none"],
    ),
    (
        Augmentation,
        {"iou_crop_probability": 0.5, "mosaic_probability": 0, "shear": 2.0},
        ["degrees and shear must be 0 where all samples are made by zoom-out and crop", "got 0.0 and 2.0"],
    ),
    (ClassAugmentation, {"scale": (0, 1)}, ["scale must be", "above 0; got [0, 1]"]),
    (ClassAugmentation, {"stretch": 0.5}, ["stretch must lie in [1, 4]; got 0.5"]),
    (ClassAugmentation, {"translate": -0.1, "hue_degrees": 200}, ["translate must", "hue_degrees must", "got 200"]),
    (ClassAugmentation, {"flip_probability": 2}, ["flip_probability must lie in [0, 1]; got 2"]),
]


@pytest.mark.parametrize(("kind", "settings", "parts"), WRONG)
def test_settings_out_of_range(
    kind: type[Augmentation | ClassAugmentation], settings: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ValueError, match=".*".join(map(re.escape, parts))):
        kind(**settings)


@pytest.mark.parametrize(("max_epochs", "plain_from"), [(300, 290), (5, -5), (None, math.inf), (-1, math.inf)])
def test_where_the_last_epochs_begin(max_epochs: int | None, plain_from: float) -> None:
    assert Augmentation(close_mosaic_epochs=10).plain_from_epoch(max_epochs) == plain_from
    assert Augmentation(close_mosaic_epochs=0).plain_from_epoch(max_epochs) == math.inf
