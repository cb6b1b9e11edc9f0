"""The sample of a key for a classifier: the same pixels in every process and at any time."""

import math
from collections.abc import Container

import cv2
import numpy as np
import torch
from typing_extensions import override

from detkit.data.augment.augmentation import ClassAugmentation
from detkit.data.augment.transforms import affine_matrix, change_colour, compose, paste, reduction_for
from detkit.data.images.resize import blank, fitted_hw, fitting_scale_xy
from detkit.data.index.regions import RegionIndex
from detkit.data.loading.image_reader import ImageReader
from detkit.data.loading.keyed_dataset import KeyedDataset
from detkit.data.loading.sampler import SampleKey, stream
from detkit.data.loading.unreadable_images import readable_row
from detkit.types import ImageLabel


class RegionDataset(KeyedDataset[ImageLabel]):
    """Samples of a split as a pure function of (seed, epoch, row, image_hw) and of which images can be read.

    Args:
        index: of the split.
        augmentation: of training; None: every region is only letterboxed.
        seed: of the augmentation.
        cache_bytes: size of the cache of decoded images in each process. It changes only the time.
        max_unreadable: images that may be replaced, see Note [replacement images] in ``unreadable_images``.
    """

    def __init__(
        self,
        index: RegionIndex,
        augmentation: ClassAugmentation | None = None,
        seed: int = 0,
        cache_bytes: int = 0,
        max_unreadable: int = 0,
    ) -> None:
        super().__init__(ImageReader(index, cache_bytes), max_unreadable)
        self.index = index
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.index)

    @override
    def make(self, key: SampleKey, unreadable: Container[int]) -> tuple[np.ndarray, ImageLabel]:
        drawn, image_rows = key, self.index.image_rows
        key = drawn._replace(row=readable_row(drawn.row, len(self), lambda row: int(image_rows[row]) in unreadable))
        if self.augmentation is None:
            image = self._letterboxed(key)
        else:
            image = self._augmented(stream(self.seed, 1, drawn.epoch, drawn.row), self.augmentation, key)
        return image, ImageLabel(torch.tensor(int(self.index.labels[key.row])), key.row)

    def _letterboxed(self, key: SampleKey) -> np.ndarray:
        """The region as ``letterbox`` gives it; a much larger region is decoded at a reduced size."""
        x1, y1, x2, y2 = region = self._region(key.row)
        height, width = fitted_hw((y2 - y1, x2 - x1), key.image_hw, "letterbox")
        matrix = affine_matrix((width / (x2 - x1), height / (y2 - y1)))
        part, to_region = self._cut(key.row, region, reduction_for(matrix))
        canvas = blank(key.image_hw)
        paste(canvas[:height, :width], part, compose(matrix, to_region))
        return canvas

    def _augmented(self, rng: np.random.Generator, augmentation: ClassAugmentation, key: SampleKey) -> np.ndarray:
        region = self._region(key.row)
        x1, y1, x2, y2 = region
        height, width = key.image_hw
        fitting, _ = fitting_scale_xy((y2 - y1, x2 - x1), key.image_hw, "letterbox")
        scale = rng.uniform(*augmentation.scale) * fitting
        stretch, shift_x, shift_y, hue, saturation, brightness = rng.uniform(-1, 1, 6).tolist()
        aspect = math.sqrt(augmentation.stretch**stretch)
        matrix = affine_matrix(
            (scale * aspect, scale / aspect),
            (
                _place((x2 - x1) * scale * aspect, width, shift_x, augmentation.translate),
                _place((y2 - y1) * scale / aspect, height, shift_y, augmentation.translate),
            ),
        )
        part, to_region = self._cut(key.row, region, reduction_for(matrix))
        canvas = blank(key.image_hw)
        paste(canvas, part, compose(matrix, to_region))
        canvas = change_colour(
            canvas,
            hue * augmentation.hue_degrees,
            1 + saturation * augmentation.saturation,
            1 + brightness * augmentation.brightness,
        )
        return cv2.flip(canvas, 1) if rng.random() < augmentation.flip_probability else canvas

    def _region(self, row: int) -> tuple[int, int, int, int]:
        """Corners xyxy, whole pixels of the original image."""
        if self.index.regions is None:
            height, width = self.images.size_hw(int(self.index.image_rows[row]))
            return 0, 0, width, height
        x1, y1, x2, y2 = self.index.regions[row].tolist()
        return x1, y1, x2, y2

    def _cut(self, row: int, region: tuple[int, int, int, int], reduce: int) -> tuple[np.ndarray, np.ndarray]:
        """The region at 1 / reduce of its size, rounded outwards to whole pixels, and the matrix back to the region."""
        image = self.images.read(int(self.index.image_rows[row]), reduce)
        x1, y1, x2, y2 = region
        left, top = x1 // reduce, y1 // reduce
        part = image[top : -(-y2 // reduce), left : -(-x2 // reduce)]
        return part, affine_matrix((reduce, reduce), (left * reduce - x1, top * reduce - y1))


def _place(drawn: float, side: int, shift: float, translate: float) -> float:
    """Where a region of ``drawn`` pixels begins on a canvas of ``side``.

    A shift in [-1, 1] moves it from one edge of the canvas to the other, and beyond by ``translate`` of the canvas.
    """
    spare = side - drawn
    return spare / 2 + shift * (abs(spare) / 2 + translate * side)
