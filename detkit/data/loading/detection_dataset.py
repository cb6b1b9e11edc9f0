"""One sample from one key: the same image and boxes, whichever process makes it and whenever."""

from collections.abc import Container

import numpy as np
import torch
from typing_extensions import override

from detkit.data.augment.augmentation import Augmentation
from detkit.data.augment.mosaic import mixup, place_mosaic, place_single
from detkit.data.augment.photometric import distort, draw_distortion
from detkit.data.augment.transforms import (
    Sample,
    UserTransforms,
    affine_matrix,
    change_colour,
    compose,
    flip,
    is_visible,
    keep_visible,
    move_boxes,
    paste,
    reduction_for,
)
from detkit.data.augment.zoom_crop import iou_crop, keep_centred, window_matrix, zoom_out
from detkit.data.images.resize import Resize, blank, fitted_hw, to_input
from detkit.data.index.coco_index import CocoIndex
from detkit.data.loading.image_reader import ImageReader
from detkit.data.loading.keyed_dataset import KeyedDataset
from detkit.data.loading.sampler import SampleKey, stream
from detkit.data.loading.unreadable_images import stand_in
from detkit.types import Target


class DetectionDataset(KeyedDataset[Target]):
    """Samples of a split as a pure function of (seed, epoch, row, image_hw) and of which images can be read.

    Args:
        index: of the split.
        augmentation: of training; None: every image only resized.
        seed: of the augmentation.
        cache_bytes: how much of the decoded images each process keeps. It changes the time only.
        resize: how an image comes to the size of the input.
        max_unreadable: images that others may stand in for, see Note [stand-ins] in ``unreadable``; 0: none.
        max_epochs: of the run; None or -1: without a last epoch. It decides where the mosaic ends.
    """

    def __init__(
        self,
        index: CocoIndex,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        cache_bytes: int = 0,
        resize: Resize = "letterbox",
        max_unreadable: int = 0,
        max_epochs: int | None = None,
    ) -> None:
        super().__init__(ImageReader(index, cache_bytes), max_unreadable)
        self.index = index
        self.augmentation = augmentation
        self.seed = seed
        self.resize: Resize = resize
        self.plain_from_epoch = augmentation.plain_from_epoch(max_epochs) if augmentation else 0
        self._transforms = UserTransforms(augmentation.transforms) if augmentation and augmentation.transforms else None

    def __len__(self) -> int:
        return len(self.index)

    @override
    def make(self, key: SampleKey, lost: Container[int]) -> tuple[np.ndarray, Target]:
        drawn = key
        key = drawn._replace(row=self._present(drawn.row, lost))
        if self.augmentation is None:
            return self._resized(Sample(self.images.read(key.row), *self.index.boxes_of(key.row)), key)
        rng = stream(self.seed, 1, drawn.epoch, drawn.row)
        if key.epoch >= self.plain_from_epoch:
            return self._plain(rng, self.augmentation, key)
        return self._augmented(rng, self.augmentation, key, lost)

    def _present(self, row: int, lost: Container[int]) -> int:
        return stand_in(row, len(self), lost.__contains__)

    def _plain(self, rng: np.random.Generator, augmentation: Augmentation, key: SampleKey) -> tuple[np.ndarray, Target]:
        """Flip and colour, then the resize of validation: what the last epochs train on."""
        image = _jitter(rng, augmentation, self.images.read(key.row))
        sample = _draw_flip(rng, augmentation, Sample(image, *self.index.boxes_of(key.row)))
        return self._resized(sample, key)

    def _resized(self, sample: Sample, key: SampleKey) -> tuple[np.ndarray, Target]:
        image, scale_xy = to_input(sample.image, key.image_hw, self.resize)
        factors = np.array(scale_xy * 2, np.float32)
        return image, self._target(sample._replace(boxes=sample.boxes * factors), key.row, scale_xy)

    def _augmented(
        self, rng: np.random.Generator, augmentation: Augmentation, key: SampleKey, lost: Container[int]
    ) -> tuple[np.ndarray, Target]:
        if rng.random() < augmentation.mosaic_probability:
            sample = self._mosaic(rng, augmentation, key, lost)
        else:
            sample = self._single(rng, augmentation, key.row, key.image_hw)
        if rng.random() < augmentation.mixup_probability:
            partner = self._present(int(rng.integers(len(self))), lost)
            sample = mixup(sample, self._single(rng, augmentation, partner, key.image_hw))
        sample = sample._replace(image=_jitter(rng, augmentation, sample.image))
        sample = _draw_flip(rng, augmentation, sample)
        sample = keep_visible(sample, augmentation.min_box_px, augmentation.min_visible_frac)
        if self._transforms is not None:
            sample = keep_visible(self._transforms(sample, rng), augmentation.min_box_px, 0)
        return sample.image, self._target(sample, key.row, (1.0, 1.0))

    def _mosaic(
        self, rng: np.random.Generator, augmentation: Augmentation, key: SampleKey, lost: Container[int]
    ) -> Sample:
        partners = rng.integers(len(self), size=3).tolist()
        rows = [key.row, *(self._present(partner, lost) for partner in partners)]
        height, width = key.image_hw
        meeting_x, meeting_y = rng.uniform(-0.5, 0.5, 2)
        placements = place_mosaic(
            [self.images.size_hw(row) for row in rows],
            key.image_hw,
            (meeting_x * width, meeting_y * height),
            self.resize,
        )
        affine = _draw_affine(rng, augmentation, key.image_hw)
        matrices = [compose(affine, placement) for placement in placements]
        return self._draw(rng, augmentation, rows, matrices, blank(key.image_hw))

    def _single(
        self, rng: np.random.Generator, augmentation: Augmentation, row: int, image_hw: tuple[int, int]
    ) -> Sample:
        if augmentation.zooms:
            return self._zoomed(rng, augmentation, row, image_hw)
        placement = place_single(self.images.size_hw(row), image_hw, self.resize)
        matrix = compose(_draw_affine(rng, augmentation, image_hw), placement)
        return self._draw(rng, augmentation, [row], [matrix], blank(image_hw))

    def _zoomed(
        self, rng: np.random.Generator, augmentation: Augmentation, row: int, image_hw: tuple[int, int]
    ) -> Sample:
        """A window of the image's plane, as large as the canvas or fitting it; black where no image is."""
        zooms, crops = rng.random(2) < (augmentation.zoom_out_probability, augmentation.iou_crop_probability)
        height, width = self.images.size_hw(row)
        window = zoom_out(rng, (height, width)) if zooms else np.array([0, 0, width, height])
        if crops:
            boxes, _, crowd = self.index.boxes_of(row)
            window = iou_crop(rng, window, boxes[~crowd])
        left, top, right, bottom = window.tolist()
        height, width = fitted_hw((bottom - top, right - left), image_hw, self.resize)
        canvas = blank(image_hw)
        part = canvas[:height, :width]
        part[:] = 0
        sample = self._draw(rng, augmentation, [row], [window_matrix(window, (height, width))], part)
        return keep_centred(sample)._replace(image=canvas)

    def _draw(
        self,
        rng: np.random.Generator,
        augmentation: Augmentation,
        rows: list[int],
        matrices: list[np.ndarray],
        canvas: np.ndarray,
    ) -> Sample:
        """Each image pasted into its part of the canvas, and its boxes moved with it."""
        boxes, labels, crowd = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int64)], [np.zeros(0, np.bool)]
        for row, matrix in zip(rows, matrices, strict=True):
            if not is_visible(matrix, self.images.size_hw(row), canvas.shape[:2]):
                continue
            reduce = reduction_for(matrix)
            to_reduced = np.array([reduce, reduce, 1])
            image = _distort(rng, augmentation, self.images.read(row, reduce))
            drawn = paste(canvas, image, matrix * to_reduced, antialias=self.resize == "squash") / to_reduced
            row_boxes, row_labels, row_crowd = self.index.boxes_of(row)
            boxes.append(move_boxes(row_boxes, drawn))
            labels.append(row_labels)
            crowd.append(row_crowd)
        return Sample(canvas, np.concatenate(boxes), np.concatenate(labels), np.concatenate(crowd))

    def _target(self, sample: Sample, row: int, scale_xy: tuple[float, float]) -> Target:
        return Target(
            boxes=torch.from_numpy(sample.boxes[~sample.crowd]),
            labels=torch.from_numpy(sample.labels[~sample.crowd]),
            crowd_boxes=torch.from_numpy(sample.boxes[sample.crowd]),
            image_id=int(self.index.image_ids[row]),
            original_hw=self.images.size_hw(row),
            scale_xy=scale_xy,
        )


def _draw_affine(rng: np.random.Generator, augmentation: Augmentation, image_hw: tuple[int, int]) -> np.ndarray:
    """The random affine from the plane to the canvas; the plane's origin lands near the canvas' middle."""
    height, width = image_hw
    scale = rng.uniform(*augmentation.scale)
    turn, lean_x, lean_y, shift_x, shift_y = rng.uniform(-1, 1, 5)
    shift_xy = (width * (0.5 + shift_x * augmentation.translate), height * (0.5 + shift_y * augmentation.translate))
    shear_xy = (lean_x * augmentation.shear, lean_y * augmentation.shear)
    return affine_matrix((scale, scale), shift_xy, turn * augmentation.degrees, shear_xy)


def _distort(rng: np.random.Generator, augmentation: Augmentation, image: np.ndarray) -> np.ndarray:
    if not augmentation.distorts:
        return image
    drawn = draw_distortion(rng, augmentation.photometric_probability, augmentation.channel_shuffle_probability)
    return distort(image, drawn)


def _jitter(rng: np.random.Generator, augmentation: Augmentation, image: np.ndarray) -> np.ndarray:
    hue, saturation, brightness = rng.uniform(-1, 1, 3)
    return change_colour(
        image,
        hue * augmentation.hue_degrees,
        1 + saturation * augmentation.saturation,
        1 + brightness * augmentation.brightness,
    )


def _draw_flip(rng: np.random.Generator, augmentation: Augmentation, sample: Sample) -> Sample:
    horizontal, vertical = rng.random(2) < (augmentation.flip_probability, augmentation.vertical_flip_probability)
    return flip(sample, bool(horizontal), bool(vertical))
