"""The settings of augmentation: what each means, its default and its range."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any


def _within(least: float, most: float, default: float) -> float:
    return field(default=default, metadata={"least": least, "most": most})


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How the training samples of a detector are made.

    Args:
        mosaic_probability: of a sample made of four images; the others are made of one.
        mixup_probability: of a second image laid over the sample, both at half strength.
        close_mosaic_epochs: number of epochs at the end of training (of ``trainer.max_epochs``) in which a sample is
            one image, flipped, coloured by ``hue_degrees``, ``saturation`` and ``brightness``, and resized as in
            validation. Mosaic ends there, and so do mixup, affine, zoom-out, IoU crop, photometric, channel shuffle
            and transforms.
        scale: smallest and largest factor on the size at which an image fits the input. It and the next three
            make the affine of a mosaic; and of a sample of one image, unless zoom-out or crop make that.
        translate: largest shift, as a fraction of the input's sides.
        degrees: largest rotation. 0 here and for ``shear`` is three times as fast.
        shear: largest shear angle in degrees, along both axes.
        flip_probability: of a mirror image, left to right.
        vertical_flip_probability: of one top to bottom.
        hue_degrees: largest rotation of the hue. The published YOLOX settings of this and the next two are about 10,
            0.2 and 0.12.
        saturation: largest change of the saturation, as a fraction.
        brightness: largest change of the brightness, as a fraction.
        zoom_out_probability: of a sample of one image that shrinks into a black canvas of 1 to 4 times its sides.
        iou_crop_probability: of a sample of one image that is cut to 0.3 to 1 of each side. The centre of at least
            one box lies in the cut, and the IoU of that box with the cut is above a random minimum. It follows the
            zoom-out.
        photometric_probability: of each of brightness (by up to 1/8), contrast and saturation (1/2) and hue (18
            degrees), drawn for each image of a sample on its own, before it is placed.
        channel_shuffle_probability: of red, green and blue in random order, likewise. Not for classes that differ
            in nothing but colour. The published RT-DETR settings are 0.5, 0.8, 0.5 and 0.5 of these four, with
            squash, ``min_box_px`` 1, and 0 for mosaic, hue, saturation and brightness.
        min_box_px: a training box that is narrower or lower than this after clipping is dropped.
        min_visible_frac: a training box is dropped when less than this fraction of its area is inside the image.
        transforms: albumentations transforms, applied to the finished sample; they must keep its size.

    Raises:
        ValueError: if a value is out of its range, or has no effect because of another; all of them at once.
    """

    mosaic_probability: float = _within(0, 1, 1.0)
    mixup_probability: float = _within(0, 1, 0.0)
    close_mosaic_epochs: int = 10
    scale: tuple[float, float] = (0.5, 1.5)
    translate: float = _within(0, 1, 0.1)
    degrees: float = _within(0, 180, 0.0)
    shear: float = _within(0, 60, 0.0)
    flip_probability: float = _within(0, 1, 0.5)
    vertical_flip_probability: float = _within(0, 1, 0.0)
    hue_degrees: float = _within(0, 180, 5.0)
    saturation: float = _within(0, 1, 0.7)
    brightness: float = _within(0, 1, 0.4)
    zoom_out_probability: float = _within(0, 1, 0.0)
    iou_crop_probability: float = _within(0, 1, 0.0)
    photometric_probability: float = _within(0, 1, 0.0)
    channel_shuffle_probability: float = _within(0, 1, 0.0)
    min_box_px: float = _within(0, math.inf, 2.0)
    min_visible_frac: float = _within(0, 1, 0.1)
    transforms: Sequence[Any] = ()  # of albumentations, which is imported only where a recipe uses it

    def __post_init__(self) -> None:
        faults = [*_range_faults(self), *_zoom_faults(self)]
        if self.close_mosaic_epochs < 0:
            faults.append(f"close_mosaic_epochs must be at least 0; got {self.close_mosaic_epochs}")
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def zooms(self) -> bool:
        """Whether a sample of one image is made by zoom-out and crop, not by the affine."""
        return self.zoom_out_probability > 0 or self.iou_crop_probability > 0

    @property
    def distorts(self) -> bool:
        """Whether the colours of each image are distorted before it is drawn."""
        return self.photometric_probability > 0 or self.channel_shuffle_probability > 0

    def plain_from_epoch(self, max_epochs: int | None) -> float:
        """First epoch, from 0, of the last ``close_mosaic_epochs``; infinity for a run that has no last epoch.

        Args:
            max_epochs: of the run; None or -1: it has no last epoch.
        """
        if max_epochs is None or max_epochs < 0 or self.close_mosaic_epochs == 0:
            return math.inf
        return max_epochs - self.close_mosaic_epochs


@dataclass(frozen=True, kw_only=True)
class ClassAugmentation:
    """How the training samples of a classifier are made.

    Args:
        scale: smallest and largest factor on the size at which an image fits the input. The image is placed anywhere
            in the input; of an image that is larger than the input any part is shown, which is a random resized crop.
        stretch: largest factor on the aspect ratio, up or down; 1: none.
        translate: how far an image may reach beyond the place that ``scale`` leaves it, as a fraction of the
            input's sides. With ``scale`` (1, 1) and ``stretch`` 1, 0.125 is the usual shift by 4 of 32 pixels.
        flip_probability: of a mirror image, left to right.
        hue_degrees: largest rotation of the hue.
        saturation: largest change of the saturation, as a fraction.
        brightness: largest change of the brightness, as a fraction.

    Raises:
        ValueError: if a value is out of its range; all of them at once.
    """

    scale: tuple[float, float] = (0.8, 1.5)
    stretch: float = _within(1, 4, 1.25)
    translate: float = _within(0, 1, 0.05)
    flip_probability: float = _within(0, 1, 0.5)
    hue_degrees: float = _within(0, 180, 5.0)
    saturation: float = _within(0, 1, 0.7)
    brightness: float = _within(0, 1, 0.4)

    def __post_init__(self) -> None:
        if faults := _range_faults(self):
            raise ValueError("; ".join(faults))


def _range_faults(augmentation: Augmentation | ClassAugmentation) -> list[str]:
    """Each value that is out of its range, by the name that a recipe gives it."""
    faults = [
        f"{setting.name} must lie in [{setting.metadata['least']}, {setting.metadata['most']}]; got {value}"
        for setting, value in zip(fields(augmentation), vars(augmentation).values(), strict=True)
        if setting.metadata and not setting.metadata["least"] <= value <= setting.metadata["most"]
    ]
    smallest, largest = augmentation.scale
    if not 0 < smallest <= largest:
        faults.append(f"scale must be the smallest and the largest factor, above 0; got {list(augmentation.scale)}")
    return faults


def _zoom_faults(augmentation: Augmentation) -> list[str]:
    """Settings that leave no sample on which others could have an effect."""
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
            "degrees and shear must be 0 where all samples are made by zoom-out and crop, which rotate nothing; "
            f"got {augmentation.degrees} and {augmentation.shear}"
        )
    return faults
