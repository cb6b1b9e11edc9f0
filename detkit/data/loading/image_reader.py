"""Reads the images of a split by row: decodes them, compares their size with the index, and caches them."""

import math
import os
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

import numpy as np

from detkit.data.images.decode import decode_image
from detkit.data.images.header import read_header
from detkit.data.loading.unreadable_images import UnreadableImage, UnreadableImageError
from detkit.data.loading.workers import IDLE, CurrentWork
from detkit.errors import DataError

FileVersion = tuple[
    int, int
]  # time of modification in ns, and bytes: they differ after the file was replaced or written


class ImageIndex(Protocol):
    """Ids, sizes and paths of the images of a split."""

    @property
    def image_ids(self) -> np.ndarray: ...
    @property
    def sizes_hw(self) -> np.ndarray: ...
    def path(self, row: int, /) -> Path: ...


class ImageCache:
    """The decoded images that this process used last, up to ``max_bytes``; 0 caches none."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._images: OrderedDict[tuple[int, int], tuple[np.ndarray, FileVersion]] = OrderedDict()

    def __contains__(self, entry: tuple[int, int]) -> bool:
        return entry in self._images

    def get(self, row: int, reduce: int, version: FileVersion) -> np.ndarray | None:
        """The image of a row at 1 / reduce of its size, if it is cached and its file has not changed."""
        image, cached_version = self._images.get((row, reduce), (None, version))
        if image is None:
            return None
        if cached_version != version:
            self.num_bytes -= image.nbytes
            del self._images[row, reduce]
            return None
        self._images.move_to_end((row, reduce))
        return image

    def put(self, row: int, reduce: int, version: FileVersion, image: np.ndarray) -> None:
        """Cache an image; the array becomes read-only."""
        if image.nbytes > self.max_bytes:
            return
        image.flags.writeable = False
        self._images[row, reduce] = image, version
        self.num_bytes += image.nbytes
        while self.num_bytes > self.max_bytes:
            _, (oldest, _) = self._images.popitem(last=False)
            self.num_bytes -= oldest.nbytes


class ImageReader:
    """Reads images of a split.

    A cached image is used only while its file exists unchanged. So the samples do not depend on what a process has
    read before, see Note [replacement images] in ``unreadable_images``.

    Args:
        index: of the images.
        cache_bytes: size of the cache of decoded images in each process.

    Attributes:
        current_work: the sample and the image in work, which the main process reads after this process was killed.
    """

    def __init__(self, index: ImageIndex, cache_bytes: int = 0) -> None:
        self.index = index
        self.cache = ImageCache(cache_bytes)
        self.current_work: CurrentWork = np.full(3, IDLE, np.int64)

    def size_hw(self, row: int) -> tuple[int, int]:
        """Size of the upright image by the index, or by the header of the file where the index has none.

        Raises:
            UnreadableImageError: if the header is needed and cannot be read.
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
        """(ceil(H / reduce), ceil(W / reduce), 3) uint8 RGB; it may be read-only.

        Raises:
            UnreadableImageError: if it cannot be decoded, or its size is not that in the index.
        """
        self.current_work[2] = row
        path = self.index.path(row)
        try:
            version = self._version(path)
            image = self.cache.get(row, reduce, version)
            if image is not None:
                return image
            image = decode_image(path, reduce)
        except DataError as error:
            raise self._unreadable(row, str(error)) from error
        height, width = self.size_hw(row)
        if image.shape[:2] != (math.ceil(height / reduce), math.ceil(width / reduce)):
            raise self._unreadable(row, f"its size is not {width} x {height} any more: the file was changed")
        self.cache.put(row, reduce, version, image)
        return image

    def _version(self, path: Path) -> FileVersion:
        if not self.cache.max_bytes:
            return 0, 0
        try:
            status = os.stat(path)  # noqa: PTH116, faster than Path.stat, and called for every image
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        return status.st_mtime_ns, status.st_size

    def _unreadable(self, row: int, reason: str) -> UnreadableImageError:
        path = self.index.path(row)
        image = UnreadableImage(int(self.index.image_ids[row]), str(path), reason.removeprefix(f"{path}: "))
        return UnreadableImageError(row, image)
