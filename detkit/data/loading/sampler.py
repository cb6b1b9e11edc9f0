"""Which samples form which batch: pure functions of (seed, epoch), for any number of workers and of ranks.

# Note [random streams]
Every random choice comes from a Philox generator seeded by (seed, stream, epoch, ...): stream 0 orders an epoch,
1 makes a sample (``detection_dataset.py``), 2 draws the size of a batch. A generator is made for each use, so it has
no state to save. A resumed run needs only its position: the epoch and the batches done.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from detkit.errors import DataError

SIZE_STEP_PX = 32  # the largest stride: sizes of multi-scale training are multiples of it


class SampleKey(NamedTuple):
    """What a sample depends on, besides the seed and the settings of the augmentation."""

    epoch: int
    row: int  # of the image in the index
    image_hw: tuple[int, int]


def stream(seed: int, number: int, *numbers: int) -> np.random.Generator:
    """Generator of one random stream, see Note [random streams]."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, number, *numbers))))


class KeySampler(Sampler[list[SampleKey]]):
    """Batches of an endless training run, one epoch per iteration.

    The order of an epoch is cut into global batches of ``batch_size * world_size``, and each rank takes its part of
    each. So the global batches are the same for any world size with the same product. The images that do not fill a
    batch at the end are left out (other images in every epoch). A set smaller than a global batch gives one smaller
    batch.

    Args:
        num_images: of the data set.
        batch_size: per rank.
        sizes_hw: input sizes; with several, every global batch draws one, the same on all ranks.
        seed: of order and sizes.
        rank: of this process.
        world_size: number of ranks.

    Raises:
        DataError: if there are fewer images than ranks.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        sizes_hw: Sequence[tuple[int, int]],
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if num_images < world_size:
            raise DataError(f"{num_images} training images are too few for {world_size} processes; use fewer devices")
        self.num_images = num_images
        self.batch_size = min(batch_size, num_images // world_size)
        self.sizes_hw = sizes_hw
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.batches_done = 0

    def __len__(self) -> int:
        """Batches of a whole epoch, also if the iteration begins within it."""
        return self.num_images // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """The batches of this epoch that are not done yet."""
        epoch = self.epoch
        order = stream(self.seed, 0, epoch).permutation(self.num_images)
        for batch in range(self.batches_done, len(self)):
            image_hw = self._image_hw(epoch, batch)
            first = (batch * self.world_size + self.rank) * self.batch_size
            yield [SampleKey(epoch, row, image_hw) for row in order[first : first + self.batch_size].tolist()]

    def move_to(self, epoch: int, batches_done: int = 0) -> None:
        """Set the position: this many batches of an epoch are done. After the last one the next epoch begins.

        Raises:
            DataError: if an epoch has fewer batches.
        """
        if not 0 <= batches_done <= len(self):
            raise DataError(
                f"the run stopped after {batches_done} batches of an epoch, which now has {len(self)}; resume with the "
                "same data, batch size and number of devices"
            )
        next_epoch, self.batches_done = divmod(batches_done, len(self))
        self.epoch = epoch + next_epoch

    def batch_done(self) -> None:
        """Count a batch that was used. The iteration cannot count it, because workers fetch batches ahead."""
        self.move_to(self.epoch, self.batches_done + 1)

    def set_epoch(self, epoch: int) -> None:
        """Move to the start of an epoch, unless the position is already in it."""
        if epoch != self.epoch:
            self.move_to(epoch)

    def state_dict(self) -> dict[str, int]:
        """The position."""
        return {"epoch": self.epoch, "batches_done": self.batches_done}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore the position.

        Raises:
            DataError: as ``move_to``.
        """
        self.move_to(state["epoch"], state["batches_done"])

    def _image_hw(self, epoch: int, batch: int) -> tuple[int, int]:
        if len(self.sizes_hw) == 1:
            return self.sizes_hw[0]
        return self.sizes_hw[int(stream(self.seed, 2, epoch, batch).integers(len(self.sizes_hw)))]


class InOrderSampler(Sampler[list[SampleKey]]):
    """Every image once over all ranks, in the file's order.

    All ranks have the same number of batches, because the synchronisation of batch norm's buffers would never end for
    a rank without one. A rank with fewer images has a smaller batch. A rank with fewer images than batches gets image
    0 again.

    Args:
        num_images: of the data set.
        batch_size: per rank, at most.
        image_hw: input size.
        rank: of this process.
        world_size: number of ranks.
    """

    def __init__(
        self, num_images: int, batch_size: int, image_hw: tuple[int, int], rank: int = 0, world_size: int = 1
    ) -> None:
        self.num_batches = math.ceil(math.ceil(num_images / world_size) / batch_size)
        self.image_hw = image_hw
        own = np.arange(rank, num_images, world_size)
        if len(own) < self.num_batches:
            own = np.append(own, np.zeros(self.num_batches - len(own), own.dtype))
        self.batches = np.array_split(own, self.num_batches)

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for batch in self.batches:
            yield [SampleKey(0, row, self.image_hw) for row in batch.tolist()]


def multi_scale_sizes(
    image_hw: tuple[int, int], multi_scale: tuple[float, float] | None
) -> tuple[tuple[int, int], ...]:
    """Input sizes from the smallest to the largest factor on ``image_hw``, multiples of 32, the shape kept.

    Args:
        image_hw: size at factor 1.
        multi_scale: smallest and largest factor; None: only ``image_hw`` itself.

    Returns:
        An empty tuple if no multiple of 32 lies between the factors.
    """
    if multi_scale is None:
        return (image_hw,)
    height, width = image_hw
    steps = range(
        max(1, math.ceil(multi_scale[0] * height / SIZE_STEP_PX)), int(multi_scale[1] * height / SIZE_STEP_PX) + 1
    )
    sizes = [(step * SIZE_STEP_PX, max(1, round(step * width / height)) * SIZE_STEP_PX) for step in steps]
    return tuple(sizes)
