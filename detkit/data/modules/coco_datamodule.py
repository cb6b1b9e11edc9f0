"""A COCO data set for Lightning: found, checked, augmented, batched."""

import functools
from dataclasses import dataclass

from typing_extensions import override

from detkit.data.augment.augmentation import Augmentation
from detkit.data.checking.splits_of_run import find_splits_or_demo, load_indices, no_split
from detkit.data.images.resize import RESIZES, Resize
from detkit.data.index.coco_index import CocoIndex
from detkit.data.loading.detection_dataset import DetectionDataset
from detkit.data.loading.loader import Loader, TrainLoader, lightning_position
from detkit.data.loading.sampler import SIZE_STEP_PX, InOrderSampler, KeySampler, multi_scale_sizes
from detkit.data.modules.coco_splits import CocoSplits
from detkit.data.modules.split_datamodule import SplitDataModule
from detkit.errors import DataError, stride_fault
from detkit.types import Batch, GroundTruth


@dataclass(kw_only=True, eq=False, repr=False)
class CocoDataModule(CocoSplits, SplitDataModule[CocoIndex]):
    """Train and validation batches of a COCO-format data set.

    Every training sample is a pure function of (seed, epoch, row of the image) and of these settings: the
    number of workers, the size of the cache and a resume in the middle of an epoch change nothing.

    Args:
        root: folder of the data set, in a layout that ``find_layout`` knows; None: the demo set. The arguments that
            are not described here are those of ``SplitDataModule`` and ``CocoSplits``.
        image_hw: input size of the network, multiples of 32.
        resize: how an image comes to that size, in training, evaluation and use: "letterbox" keeps its aspect
            ratio and fills up with grey, "squash" does not keep it.
        multi_scale: smallest and largest factor on ``image_hw``; each training batch draws a size
            of multiples of 32 between them. None: always ``image_hw``.
        augmentation: how training samples are made; None: an image is resized as in validation.

    Raises:
        ValueError: if a value is out of its range; all of them at once.
    """

    resize: Resize = "letterbox"
    multi_scale: tuple[float, float] | None = None
    augmentation: Augmentation | None = Augmentation()  # noqa: RUF009, it is immutable

    @override
    def read_splits(self) -> dict[str, CocoIndex]:
        splits = find_splits_or_demo(self.root, self.explicit)
        return load_indices(splits, self.root, follow_links=self.follow_links)

    @override
    def no_split(self, name: str) -> DataError:
        return no_split(name, self.root)

    def ground_truth(self) -> GroundTruth:
        """The validation split as its file has it, for the metric."""
        return self.index("val").ground_truth()

    @override
    def train_dataloader(self) -> TrainLoader[DetectionDataset, Batch]:
        """Batches from where the trainer stands, or from the first on without one."""
        index = self.index("train")
        cache_bytes = self.cache_mb * 2**20 // max(1, self.num_workers)
        sampler = KeySampler(
            len(index),
            self.batch_size,
            multi_scale_sizes(self.image_hw, self.multi_scale),
            self.seed,
            *self.rank_and_world_size(),
        )
        dataset = DetectionDataset(
            index,
            self.augmentation,
            self.seed,
            cache_bytes,
            self.resize,
            self.max_unreadable,
            max_epochs=self.trainer.max_epochs if self.trainer else None,
        )
        position = functools.partial(lightning_position, self.trainer) if self.trainer else None
        loader: TrainLoader[DetectionDataset, Batch] = TrainLoader(
            dataset, sampler, self.num_workers, position, unreadable=self.unreadable
        )
        self.loaders.append(loader)
        return loader

    @override
    def val_dataloader(self) -> Loader[DetectionDataset, Batch]:
        """Every validation image once over all ranks."""
        index = self.index("val")
        sampler = InOrderSampler(len(index), self.val_size, self.image_hw, *self.rank_and_world_size())
        dataset = DetectionDataset(index, resize=self.resize)
        loader: Loader[DetectionDataset, Batch] = Loader(dataset, sampler, self.num_workers)
        self.loaders.append(loader)
        return loader

    @override
    def faults(self) -> list[str]:
        found = [*super().faults(), *self.split_faults()]
        if self.resize not in RESIZES:
            found.append(f"resize must be {' or '.join(RESIZES)}; got {self.resize!r}")
        if fault := stride_fault(self.image_hw, SIZE_STEP_PX):
            found.append(f"image_hw {fault}")
        elif self.multi_scale is not None and not multi_scale_sizes(self.image_hw, self.multi_scale):
            found.append(
                f"multi_scale must be the smallest and the largest factor on image_hw, with a multiple of "
                f"{SIZE_STEP_PX} pixels between them; got {list(self.multi_scale)}"
            )
        return found
