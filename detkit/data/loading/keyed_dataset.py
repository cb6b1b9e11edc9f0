"""The base of all data sets: it makes the sample of a key, and replaces images that cannot be read."""

from collections.abc import Container
from typing import Generic, TypeVar

import numpy as np
from torch.utils.data import Dataset

from detkit.data.loading.image_reader import ImageReader
from detkit.data.loading.sampler import SampleKey
from detkit.data.loading.unreadable_images import UnreadableImage, make_with_replacements
from detkit.data.loading.workers import IDLE
from detkit.errors import DataError
from detkit.types import ImageLabel, Target

TargetT = TypeVar("TargetT", Target, ImageLabel)
Samples = list[tuple[np.ndarray, TargetT]]


class KeyedDataset(Dataset[tuple[np.ndarray, TargetT]], Generic[TargetT]):
    """Samples by their keys; a subclass makes them.

    Args:
        images: reads them.
        max_unreadable: images that may be replaced, see Note [replacement images] in ``unreadable_images``.
    """

    def __init__(self, images: ImageReader, max_unreadable: int) -> None:
        self.images = images
        self.max_unreadable = max_unreadable

    def make(self, key: SampleKey, unreadable: Container[int]) -> tuple[np.ndarray, TargetT]:
        """(H, W, 3) uint8 RGB image and its target, without the images of the ``unreadable`` rows.

        Raises:
            UnreadableImageError: if another image cannot be read, or its size is not that in the index.
        """
        raise NotImplementedError(f"{type(self).__name__} must define make")

    def __getitem__(self, key: SampleKey) -> tuple[np.ndarray, TargetT]:
        """(H, W, 3) uint8 RGB image and its target.

        Raises:
            DataError: if an image cannot be read and may not be replaced.
        """
        return self._make(key)[0]

    def __getitems__(self, keys: list[SampleKey]) -> tuple[Samples[TargetT], list[UnreadableImage]] | DataError:
        """The samples of a batch and the images that were replaced.

        An error is returned and not raised, because torch turns exceptions of a worker into the text of a traceback.
        """
        try:
            made = [self._make(key) for key in keys]
        except DataError as error:
            return error
        self.images.current_work[:] = IDLE
        return [sample for sample, _ in made], [image for _, unreadable in made for image in unreadable]

    def _make(self, key: SampleKey) -> tuple[tuple[np.ndarray, TargetT], list[UnreadableImage]]:
        self.images.current_work[:2] = key.epoch, key.row
        return make_with_replacements(lambda unreadable: self.make(key, unreadable), self.max_unreadable)
