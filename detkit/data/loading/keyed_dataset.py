"""What all data sets do with a key: make its sample, and let others stand in for images that cannot be read."""

from collections.abc import Container
from typing import Generic, TypeVar

import numpy as np
from torch.utils.data import Dataset

from detkit.data.loading.image_reader import ImageReader
from detkit.data.loading.sampler import SampleKey
from detkit.data.loading.unreadable_images import LostImage, with_stand_ins
from detkit.data.loading.workers import IDLE
from detkit.errors import DataError
from detkit.types import ImageLabel, Target

TargetT = TypeVar("TargetT", Target, ImageLabel)


class KeyedDataset(Dataset[tuple[np.ndarray, TargetT]], Generic[TargetT]):
    """Samples by their keys; a subclass makes them.

    Args:
        images: reads them.
        max_unreadable: images that others may stand in for, see Note [stand-ins] in ``unreadable``; 0: none.
    """

    def __init__(self, images: ImageReader, max_unreadable: int) -> None:
        self.images = images
        self.max_unreadable = max_unreadable

    def make(self, key: SampleKey, lost: Container[int]) -> tuple[np.ndarray, TargetT]:
        """(H, W, 3) uint8 RGB image and its target, without the lost images, which are named by their rows.

        Raises:
            UnreadableImageError: if an image cannot be read, or has another size than the index says.
        """
        raise NotImplementedError("a subclass knows what a sample is made of")

    def __getitem__(self, key: SampleKey) -> tuple[np.ndarray, TargetT]:
        """(H, W, 3) uint8 RGB image and its target.

        Raises:
            DataError: if an image cannot be read and no other may stand in for it.
        """
        return self._make(key)[0]

    def __getitems__(
        self, keys: list[SampleKey]
    ) -> tuple[list[tuple[np.ndarray, TargetT]], list[LostImage]] | DataError:
        """The samples of a batch and the images that others stand in for, or what is wrong with one of them.

        As a value, because an exception that leaves a worker arrives as the text of its traceback.
        """
        try:
            made = [self._make(key) for key in keys]
        except DataError as error:
            return error
        self.images.at_work[:] = IDLE
        return [sample for sample, _ in made], [image for _, lost in made for image in lost]

    def _make(self, key: SampleKey) -> tuple[tuple[np.ndarray, TargetT], list[LostImage]]:
        self.images.at_work[:2] = key.epoch, key.row
        return with_stand_ins(lambda lost: self.make(key, lost), self.max_unreadable)
