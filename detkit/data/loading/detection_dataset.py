"""The sample of a key for a detector: the same image and boxes in every process and at any time."""

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
from detkit.data.loading.unreadable_images import readable_row
from detkit.types import Target


class DetectionDataset(KeyedDataset[Target]):
    """Samples of a split as a pure function of (seed, epoch, row, image_hw) and of which images can be read.

    Args:
        index: of the split.
        augmentation: of training; None: every image is only resized.
        seed: of the augmentation.
        cache_bytes: size of the cache of decoded images in each process. It changes only the time.
        resize: method by which an image is resized to the network input.
        max_unreadable: images that may be replaced, see Note [replacement images] in ``unreadable_images``.
        max_epochs: of the run; None or -1: without a last epoch. It decides when the mosaic ends.
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
    def make(self, key: SampleKey, unreadable: Container[int]) -> tuple[np.ndarray, Target]:
        drawn = key
        key = drawn._replace(row=self._readable(drawn.row, unreadable))
        if self.augmentation is None:
            return self._resized(Sample(self.images.read(key.row), *self.index.boxes_of(key.row)), key)
        rng = stream(self.seed, 1, drawn.epoch, drawn.row)
        if key.epoch >= self.plain_from_epoch:
            return self._plain(rng, self.augmentation, key)
        return self._augmented(rng, self.augmentation, key, unreadable)

    def _readable(self, row: int, unreadable: Container[int]) -> int:
        return readable_row(row, len(self), unreadable.__contains__)

    def _plain(self, rng: np.random.Generator, augmentation: Augmentation, key: SampleKey) -> tuple[np.ndarray, Target]:
        """A sample of the last epochs: flipped, with changed colours, and resized as in validation."""
        image = _jitter(rng, augmentation, self.images.read(key.row))
        sample = _draw_flip(rng, augmentation, Sample(image, *self.index.boxes_of(key.row)))
        return self._resized(sample, key)

    def _resized(self, sample: Sample, key: SampleKey) -> tuple[np.ndarray, Target]:
        image, scale_xy = to_input(sample.image, key.image_hw, self.resize)
        factors = np.array(scale_xy * 2, np.float32)
        return image, self._target(sample._replace(boxes=sample.boxes * factors), key.row, scale_xy)

    def _augmented(
        self, rng: np.random.Generator, augmentation: Augmentation, key: SampleKey, unreadable: Container[int]
    ) -> tuple[np.ndarray, Target]:
        if rng.random() < augmentation.mosaic_probability:
            sample = self._mosaic(rng, augmentation, key, unreadable)
        else:
            sample = self._single(rng, augmentation, key.row, key.image_hw)
        if rng.random() < augmentation.mixup_probability:
            partner = self._readable(int(rng.integers(len(self))), unreadable)
            sample = mixup(sample, self._single(rng, augmentation, partner, key.image_hw))
        sample = sample._replace(image=_jitter(rng, augmentation, sample.image))
        sample = _draw_flip(rng, augmentation, sample)
        sample = keep_visible(sample, augmentation.min_box_px, augmentation.min_visible_frac)
        if self._transforms is not None:
            sample = keep_visible(self._transforms(sample, rng), augmentation.min_box_px, 0)
        return sample.image, self._target(sample, key.row, (1.0, 1.0))

    def _mosaic(
        self, rng: np.random.Generator, augmentation: Augmentation, key: SampleKey, unreadable: Container[int]
    ) -> Sample:
        partners = rng.integers(len(self), size=3).tolist()
        rows = [key.row, *(self._readable(partner, unreadable) for partner in partners)]
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
        """A window around or inside the image, resized to the canvas; black where it reaches beyond the image."""
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
        """Paste each image into the canvas, and transform its boxes likewise."""
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
    """The random affine map to the canvas; the origin comes to lie near the middle of the canvas."""
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
