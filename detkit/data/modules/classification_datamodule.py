"""What the data modules of classifiers share: settings and loaders."""

import functools
from dataclasses import dataclass

from typing_extensions import override

from detkit.data.augment.augmentation import ClassAugmentation
from detkit.data.index.regions import RegionIndex
from detkit.data.loading.loader import Loader, TrainLoader, lightning_position
from detkit.data.loading.region_dataset import RegionDataset
from detkit.data.loading.sampler import InOrderSampler, KeySampler
from detkit.data.modules.split_datamodule import SplitDataModule
from detkit.errors import DataError
from detkit.types import ClassBatch, ClassTruth

SMALLEST_SIDE_PX = 8


@dataclass(kw_only=True, eq=False, repr=False)
class ClassificationDataModule(SplitDataModule[RegionIndex]):
    """Train and validation batches of labelled images; subclasses know where they come from.

    Every training sample is a pure function of (seed, epoch, row of the image) and of these settings, as in
    ``CocoDataModule``. A validation sample is the whole image in the letterbox of detection: undistorted, on
    the same grey, so a backbone that is trained here fits the images of a detector.

    Args:
        root: folder of the data set; None: the demo set. The arguments that are not described here are those of
            ``SplitDataModule``.
        image_hw: input size of the network, at least 8 pixels.
        cache_mb: decoded images kept in memory, over all workers of a device; for training, and as much
            again for validation.
        augmentation: how training samples are made; None: an image is letterboxed as in validation.

    Raises:
        ValueError: if a value is out of its range; all of them at once.
    """

    image_hw: tuple[int, int] = (64, 64)
    batch_size: int = 64
    augmentation: ClassAugmentation | None = ClassAugmentation()  # noqa: RUF009, it is immutable

    def ground_truth(self) -> ClassTruth:
        """The classes of the validation split, for the metric."""
        index = self.index("val")
        return ClassTruth(index.class_names, index.category_ids, index.counts())

    @override
    def train_dataloader(self) -> TrainLoader[RegionDataset, ClassBatch]:
        """Batches from where the trainer stands, or from the first on without one."""
        dataset = RegionDataset(
            self.index("train"), self.augmentation, self.seed, self._cache_bytes(), self.max_unreadable
        )
        sampler = KeySampler(len(dataset), self.batch_size, (self.image_hw,), self.seed, *self.rank_and_world_size())
        position = functools.partial(lightning_position, self.trainer) if self.trainer else None
        loader: TrainLoader[RegionDataset, ClassBatch] = TrainLoader(
            dataset, sampler, self.num_workers, position, self.unreadable
        )
        self.loaders.append(loader)
        return loader

    @override
    def val_dataloader(self) -> Loader[RegionDataset, ClassBatch]:
        """Every validation image once over all ranks."""
        dataset = RegionDataset(self.index("val"), cache_bytes=self._cache_bytes())
        sampler = InOrderSampler(len(dataset), self.val_size, self.image_hw, *self.rank_and_world_size())
        loader: Loader[RegionDataset, ClassBatch] = Loader(dataset, sampler, self.num_workers)
        self.loaders.append(loader)
        return loader

    @override
    def no_split(self, name: str) -> DataError:
        return DataError(f"there is no folder {name} under {self.root}, which a fit needs")

    @override
    def faults(self) -> list[str]:
        found = super().faults()
        if min(self.image_hw) < SMALLEST_SIDE_PX:
            found.append(f"image_hw must be at least {SMALLEST_SIDE_PX} pixels; got {list(self.image_hw)}")
        return found

    def _cache_bytes(self) -> int:
        return self.cache_mb * 2**20 // max(1, self.num_workers)
