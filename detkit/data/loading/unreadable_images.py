"""Images that cannot be read any more: how each is replaced, and how many a run accepts.

# Note [replacement images]
A sample depends on its key and on which files can be read now. An unreadable image is replaced by the image of the
next row that can be read; after the last row the search goes on at the first. The random generator stays that of the
sample's own key. So the stream of samples is the same for any number of workers and after a resume, as long as the
files are the same.
"""

import logging
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from detkit.errors import DataError

LISTED_IN_ERROR = 10  # images
WARNINGS = 5  # at most, while training goes on
LOG = logging.getLogger(__name__)
Made = TypeVar("Made")


class UnreadableImage(NamedTuple):
    """An image that could be read when training began, and why it cannot be read now."""

    image_id: int
    file: str
    reason: str

    def __str__(self) -> str:
        return f"image {self.image_id}: {self.file}: {self.reason}"


class UnreadableImageError(DataError):
    """The image of a row cannot be read."""

    def __init__(self, row: int, image: UnreadableImage) -> None:
        super().__init__(str(image))
        self.row = row
        self.image = image


class NoReadableImageError(DataError):
    """No image is left that can replace an unreadable one."""


def make_with_replacements(make: Callable[[Container[int]], Made], limit: int) -> tuple[Made, list[UnreadableImage]]:
    """Call ``make`` with the rows of unreadable images, again for each that it finds; and these images.

    Raises:
        DataError: if more than ``limit`` images are unreadable, or no readable image is left.
    """
    unreadable: dict[int, UnreadableImage] = {}
    while True:
        try:
            return make(unreadable), list(unreadable.values())
        except UnreadableImageError as error:
            unreadable[error.row] = error.image
            if len(unreadable) > limit:
                raise _too_many(list(unreadable.values()), limit) from error
        except NoReadableImageError as error:
            raise _listing(str(error), list(unreadable.values())) from error


def readable_row(row: int, num_rows: int, is_unreadable: Callable[[int], bool]) -> int:
    """The row itself, or the next readable one, see Note [replacement images].

    Raises:
        NoReadableImageError: if all are unreadable.
    """
    for step in range(num_rows):
        candidate = (row + step) % num_rows
        if not is_unreadable(candidate):
            return candidate
    raise NoReadableImageError(f"none of {num_rows:,} training samples can be read any more")


class UnreadableCounter:
    """Counts each unreadable image of a run once, and warns of the first few.

    Args:
        limit: largest number of unreadable images.

    Attributes:
        images: by file, in the order in which they were found.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.images: dict[str, UnreadableImage] = {}

    def add(self, images: Iterable[Sequence[Any]]) -> None:
        """Count images. Rank 0, which also receives those of the other ranks, warns of new ones.

        Args:
            images: the values of ``UnreadableImage`` for each; other ranks send them as plain lists.

        Raises:
            DataError: if there are more than the limit, with the first of them.
        """
        for image in map(UnreadableImage._make, images):
            if image.file in self.images:
                continue
            self.images[image.file] = image
            if len(self.images) <= min(WARNINGS, self.limit):
                from lightning.pytorch.utilities import rank_zero_only  # slow to import, and prediction needs none

                number = f"{len(self.images)} of at most {self.limit}, see data.max_unreadable"
                rank_zero_only(LOG.warning)("an image cannot be read and is replaced (%s): %s", number, image)
        if len(self.images) > self.limit:
            raise _too_many(list(self.images.values()), self.limit)


def _too_many(images: list[UnreadableImage], limit: int) -> DataError:
    if limit == 0 and len(images) == 1:
        why = "a validation image is never replaced, and with data.max_unreadable=0 no image is"
        return DataError(f"{images[0]}; {why}: restore the file, and continue with resume=true")
    return _listing(f"{len(images)} images cannot be read any more, more than data.max_unreadable={limit}", images)


def _listing(fault: str, images: list[UnreadableImage]) -> DataError:
    listed = [str(image) for image in images[:LISTED_IN_ERROR]]
    more = [f"and {len(images) - LISTED_IN_ERROR} more"] if len(images) > LISTED_IN_ERROR else []
    remedy = "restore the files or the disk, and continue with resume=true"
    return DataError("\n    ".join([f"{fault}; {remedy}:", *listed, *more]))
