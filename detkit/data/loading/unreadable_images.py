"""Images that cannot be read any more: which one stands in for each, and how many of them a run bears.

# Note [stand-ins]
A sample is a function of its key and of which files can be read now. The image of a row that cannot be
read is replaced by that of the next row that can, after the last row by the first; the sample keeps the
generator of its own key. So the stream of samples is the same for any number of workers and after a
resume, as long as the files are the same.
"""

import logging
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from detkit.errors import DataError

NAMED = 10  # in an error
SAID = 5  # while training goes on
LOG = logging.getLogger(__name__)
Made = TypeVar("Made")


class LostImage(NamedTuple):
    """An image that was there when training began, and what is wrong with it now."""

    image_id: int
    file: str
    reason: str

    def __str__(self) -> str:
        return f"image {self.image_id}: {self.file}: {self.reason}"


class UnreadableImageError(DataError):
    """One image cannot be read.

    Args:
        row: of the image.
        image: its name and the reason.
    """

    def __init__(self, row: int, image: LostImage) -> None:
        super().__init__(str(image))
        self.row = row
        self.image = image


class NothingLeftError(DataError):
    """Whatever is asked for, no image is left that could be it."""


def with_stand_ins(make: Callable[[Container[int]], Made], limit: int) -> tuple[Made, list[LostImage]]:
    """What ``make`` gives when it is told which rows to pass over, and the images of those rows.

    Raises:
        DataError: if it needs more than ``limit`` rows passed over, or none is left.
    """
    lost: dict[int, LostImage] = {}
    while True:
        try:
            return make(lost), list(lost.values())
        except UnreadableImageError as error:
            lost[error.row] = error.image
            if len(lost) > limit:
                raise _too_many(list(lost.values()), limit) from error
        except NothingLeftError as error:
            raise _naming(str(error), list(lost.values())) from error


def stand_in(row: int, num_rows: int, is_lost: Callable[[int], bool]) -> int:
    """The row itself, or the next one that is not lost, see Note [stand-ins].

    Raises:
        NothingLeftError: if all are lost.
    """
    for step in range(num_rows):
        candidate = (row + step) % num_rows
        if not is_lost(candidate):
            return candidate
    raise NothingLeftError(f"none of {num_rows:,} training samples can be read any more")


class UnreadableImages:
    """The images of a run that others stood in for, each counted once; warns of the first few.

    Args:
        limit: so many at most.

    Attributes:
        images: by file, in the order in which they were found.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.images: dict[str, LostImage] = {}

    def note(self, images: Iterable[Sequence[Any]]) -> None:
        """Count images, and warn of new ones on rank 0, which hears of those of other ranks too.

        Args:
            images: as ``LostImage``.

        Raises:
            DataError: if they are more than the limit, naming them.
        """
        for image in map(LostImage._make, images):
            if image.file in self.images:
                continue
            self.images[image.file] = image
            if len(self.images) <= min(SAID, self.limit):
                from lightning.pytorch.utilities import rank_zero_only  # not at the start of those who only predict

                number = f"{len(self.images)} of at most {self.limit}, see data.max_unreadable"
                rank_zero_only(LOG.warning)(
                    "another image stands in for one that cannot be read (%s): %s", number, image
                )
        if len(self.images) > self.limit:
            raise _too_many(list(self.images.values()), self.limit)


def _too_many(images: list[LostImage], limit: int) -> DataError:
    if limit == 0 and len(images) == 1:
        [image] = images
        why = "a validation image, or data.max_unreadable=0"
        return DataError(f"{image}; no other may stand in for it ({why}): mend the file, and go on with resume=true")
    return _naming(f"{len(images)} images cannot be read any more, more than data.max_unreadable={limit}", images)


def _naming(what: str, images: list[LostImage]) -> DataError:
    named = [str(image) for image in images[:NAMED]]
    more = [f"and {len(images) - NAMED} more"] if len(images) > NAMED else []
    return DataError("\n    ".join([f"{what}; mend the files or the disk, and go on with resume=true:", *named, *more]))
