"""The images of a split by their rows: decoded, of the size that is known, and kept for the next use."""

import math
import os
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

import numpy as np

from detkit.data.images.decode import decode_image
from detkit.data.images.header import read_header
from detkit.data.loading.unreadable_images import LostImage, UnreadableImageError
from detkit.data.loading.workers import IDLE, AtWork
from detkit.errors import DataError

Stamp = tuple[int, int]  # time and number of bytes: of another file, or of one that was written again, they differ


class ImageIndex(Protocol):
    """What is known of images without their pixels."""

    @property
    def image_ids(self) -> np.ndarray: ...
    @property
    def sizes_hw(self) -> np.ndarray: ...
    def path(self, row: int, /) -> Path: ...


class ImageCache:
    """Decoded images of this process, the latest used ones up to a number of bytes; 0: none."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._images: OrderedDict[tuple[int, int], tuple[np.ndarray, Stamp]] = OrderedDict()

    def __contains__(self, entry: tuple[int, int]) -> bool:
        return entry in self._images

    def get(self, row: int, reduce: int, stamp: Stamp) -> np.ndarray | None:
        """The image of a row at 1 / reduce of its size, if it is here and the file is still the same."""
        image, kept = self._images.get((row, reduce), (None, stamp))
        if image is None:
            return None
        if kept != stamp:
            self.num_bytes -= image.nbytes
            del self._images[row, reduce]
            return None
        self._images.move_to_end((row, reduce))
        return image

    def put(self, row: int, reduce: int, stamp: Stamp, image: np.ndarray) -> None:
        """Keep an image; nobody may write to it from here on."""
        if image.nbytes > self.max_bytes:
            return
        image.flags.writeable = False
        self._images[row, reduce] = image, stamp
        self.num_bytes += image.nbytes
        while self.num_bytes > self.max_bytes:
            _, (oldest, _) = self._images.popitem(last=False)
            self.num_bytes -= oldest.nbytes


class ImageReader:
    """Reads images of a split.

    A kept image is used only while its file is there and unchanged: what a process has read before
    must not decide which image a sample shows, see Note [stand-ins] in ``unreadable``.

    Args:
        index: of the images.
        cache_bytes: how much of the decoded images each process keeps.

    Attributes:
        at_work: what is being made and read, for whoever asks after this process was killed.
    """

    def __init__(self, index: ImageIndex, cache_bytes: int = 0) -> None:
        self.index = index
        self.cache = ImageCache(cache_bytes)
        self.at_work: AtWork = np.full(3, IDLE, np.int64)

    def size_hw(self, row: int) -> tuple[int, int]:
        """Of the upright image, as the index says; from the file if it does not.

        Raises:
            UnreadableImageError: if the file has to be looked into, and cannot.
        """
        height, width = self.index.sizes_hw[row].tolist()
        if height:
            return height, width
        try:
            header = read_header(self.index.path(row))
        except DataError as error:
            raise self._unreadable(row, str(error)) from error
        return header.height, header.width

    def read(self, row: int, reduce: int = 1) -> np.ndarray:
        """(ceil(H / reduce), ceil(W / reduce), 3) uint8 RGB; not to be written to.

        Raises:
            UnreadableImageError: if it cannot be decoded, or has another size than is known.
        """
        self.at_work[2] = row
        path = self.index.path(row)
        try:
            stamp = self._stamp(path)
            image = self.cache.get(row, reduce, stamp)
            if image is not None:
                return image
            image = decode_image(path, reduce)
        except DataError as error:
            raise self._unreadable(row, str(error)) from error
        height, width = self.size_hw(row)
        if image.shape[:2] != (math.ceil(height / reduce), math.ceil(width / reduce)):
            raise self._unreadable(row, f"not {width} x {height} as at the start: it was changed since")
        self.cache.put(row, reduce, stamp, image)
        return image

    def _stamp(self, path: Path) -> Stamp:
        if not self.cache.max_bytes:
            return 0, 0
        try:
            status = os.stat(path)  # noqa: PTH116, twice as fast as Path.stat, and done for every image
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        return status.st_mtime_ns, status.st_size

    def _unreadable(self, row: int, reason: str) -> UnreadableImageError:
        path = self.index.path(row)
        image = LostImage(int(self.index.image_ids[row]), str(path), reason.removeprefix(f"{path}: "))
        return UnreadableImageError(row, image)
