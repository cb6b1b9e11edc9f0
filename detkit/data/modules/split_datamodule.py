"""What all data modules share: splits that are read once, loaders that are closed, batches as floats."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import lightning as L
from typing_extensions import override

from detkit.data.images.resize import to_unit
from detkit.data.loading.loader import Loader
from detkit.data.loading.unreadable_images import UnreadableCounter
from detkit.errors import DataError


class SplitIndex(Protocol):
    """What a data module needs to know of a split."""

    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def fingerprint(self) -> str: ...


IndexT = TypeVar("IndexT", bound=SplitIndex)


@dataclass(kw_only=True, eq=False, repr=False)
class SplitDataModule(L.LightningDataModule, Generic[IndexT]):
    """A data set with a validation split and, for a fit, a training split.

    A subclass says how its splits are read and how its loaders are made. Loaders that it appends to ``loaders``
    are closed at the end. Its further settings are fields too, and ``faults`` checks them.

    Args:
        root: folder of the data set; None: the demo set.
        image_hw: input size of the network.
        batch_size: training images per device.
        val_batch_size: validation images per device; None: as ``batch_size``.
        num_workers: processes that make samples, for training and for validation; 0: the training process makes them.
        seed: of order and augmentation.
        cache_mb: decoded training images kept in memory, over all workers of a device.
        max_unreadable: number of training images that a run replaces by the next image of the set, because they
            cannot be read after the start or changed their size; one more stops the run. Validation always stops,
            because its AP would be of other images.
        follow_links: whether an image may lie outside of ``root``, where a symbolic link leads to it.

    Raises:
        ValueError: if a value is out of its range; all of them at once.
    """

    root: str | None = None
    image_hw: tuple[int, int] = (640, 640)
    batch_size: int = 16
    val_batch_size: int | None = None
    num_workers: int = 2
    seed: int = 0
    cache_mb: int = 1024
    max_unreadable: int = 10
    follow_links: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        self.loaders: list[Loader[Any, Any]] = []  # of any data set
        self.unreadable = UnreadableCounter(self.max_unreadable)
        self._indices: Mapping[str, IndexT] = {}
        if faults := self.faults():
            raise ValueError("; ".join(faults))

    def faults(self) -> list[str]:
        """Each setting that is out of its range."""
        at_least = {
            "batch_size": (self.batch_size, 1),
            "val_batch_size": (self.val_size, 1),
            "num_workers": (self.num_workers, 0),
            "seed": (self.seed, 0),
            "cache_mb": (self.cache_mb, 0),
            "max_unreadable": (self.max_unreadable, 0),
        }
        return [
            f"{name} must be at least {least}; got {value}"
            for name, (value, least) in at_least.items()
            if value < least
        ]

    @property
    def val_size(self) -> int:
        """Validation images per device."""
        return self.batch_size if self.val_batch_size is None else self.val_batch_size

    def read_splits(self) -> Mapping[str, IndexT]:
        """The splits "val" and, where it is there, "train": found, checked and reported.

        Raises:
            DataError: if the data cannot be used, naming every fault; if there is no validation
                split; if the splits have different classes.
        """
        raise NotImplementedError("a subclass must read its splits")

    def no_split(self, name: str) -> DataError:
        """The error for a split that is missing."""
        raise NotImplementedError("a subclass must name the missing split")

    def prepare(self) -> None:
        """Find, read and check the splits, and report once what is odd in them.

        Training data may be missing, for an evaluation; ``setup`` for a fit asks for it.

        Raises:
            DataError: as ``read_splits``.
        """
        if not self._indices:
            self._indices = self.read_splits()

    @override
    def setup(self, stage: str) -> None:
        """Called by Lightning: ``prepare``, and a check that the stage has its data.

        Raises:
            DataError: as ``prepare``; and if a fit has no training split.
        """
        self.prepare()
        if stage == "fit":
            self.index("train")

    def index(self, name: str) -> IndexT:
        """The index of a split.

        Raises:
            DataError: if there is no such split.
        """
        self.prepare()
        if name not in self._indices:
            raise self.no_split(name)
        return self._indices[name]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class index."""
        return self.index("val").class_names

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the annotations of all splits in use."""
        self.prepare()
        return hashlib.sha256("".join(index.fingerprint for index in self._indices.values()).encode()).hexdigest()

    @override
    def teardown(self, stage: str) -> None:
        """End the worker processes."""
        for loader in self.loaders:
            loader.close()
        self.loaders.clear()

    @override
    def on_exception(self, exception: BaseException) -> None:
        """Lightning does not call ``teardown`` for a run that failed."""
        self.teardown("exception")

    @override
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Images in [0, 1], on the device that they are on by now, in float32 or in the precision of all weights."""
        images = to_unit(batch.images)
        return batch._replace(images=self.trainer.precision_plugin.convert_input(images) if self.trainer else images)

    def rank_and_world_size(self) -> tuple[int, int]:
        """Rank of this process and number of processes, among which the data is divided."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
