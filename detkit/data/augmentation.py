"""The settings of augmentation, and what is wrong with them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Augmentation:
    """How training samples are made; the meaning of each field stands at ``CocoDataModule``."""

    mosaic_probability: float = 1.0
    mixup_probability: float = 0.0
    scale: tuple[float, float] = (0.5, 1.5)
    translate: float = 0.1
    degrees: float = 0.0
    shear: float = 0.0
    flip_probability: float = 0.5
    vertical_flip_probability: float = 0.0
    hue_degrees: float = 5.0
    saturation: float = 0.7
    brightness: float = 0.4
    min_box_px: float = 2.0
    min_visible_frac: float = 0.1
    plain_from_epoch: float = math.inf
    transforms: Sequence[Any] = ()


def augmentation_faults(augmentation: Augmentation) -> list[str]:
    """Each value that is out of its range, by the name that a recipe gives it."""
    within = {
        "mosaic_probability": 1,
        "mixup_probability": 1,
        "translate": 1,
        "degrees": 180,
        "shear": 60,
        "flip_probability": 1,
        "vertical_flip_probability": 1,
        "hue_degrees": 180,
        "saturation": 1,
        "brightness": 1,
        "min_box_px": math.inf,
        "min_visible_frac": 1,
    }
    faults = [
        f"{name} must lie in [0, {most}]; got {value}"
        for name, most in within.items()
        if not 0 <= (value := getattr(augmentation, name)) <= most
    ]
    smallest, largest = augmentation.scale
    if not 0 < smallest <= largest:
        faults.append(f"scale must be the smallest and the largest factor, above 0; got {list(augmentation.scale)}")
    return faults
