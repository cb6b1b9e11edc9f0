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
    zoom_out_probability: float = 0.0
    iou_crop_probability: float = 0.0
    photometric_probability: float = 0.0
    channel_shuffle_probability: float = 0.0
    min_box_px: float = 2.0
    min_visible_frac: float = 0.1
    plain_from_epoch: float = math.inf
    transforms: Sequence[Any] = ()

    @property
    def zooms(self) -> bool:
        """Whether a sample of one image is made by zoom-out and crop, not by the affine."""
        return self.zoom_out_probability > 0 or self.iou_crop_probability > 0

    @property
    def distorts(self) -> bool:
        """Whether the colours of each image are distorted before it is drawn."""
        return self.photometric_probability > 0 or self.channel_shuffle_probability > 0


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
        "zoom_out_probability": 1,
        "iou_crop_probability": 1,
        "photometric_probability": 1,
        "channel_shuffle_probability": 1,
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
    return [*faults, *_zoom_faults(augmentation)]


def _zoom_faults(augmentation: Augmentation) -> list[str]:
    """Settings of which one leaves nothing to do for the other."""
    faults = []
    singles = augmentation.mosaic_probability < 1 or augmentation.mixup_probability > 0
    if augmentation.zooms and not singles:
        faults.append(
            "zoom_out_probability and iou_crop_probability are for samples of one image, and with mosaic_probability "
            "1 there are none; lower it"
        )
    turns = augmentation.degrees != 0 or augmentation.shear != 0
    if augmentation.zooms and turns and augmentation.mosaic_probability == 0:
        faults.append(
            "degrees and shear must be 0 where all samples are made by zoom-out and crop, which turn nothing; "
            f"got {augmentation.degrees} and {augmentation.shear}"
        )
    return faults
