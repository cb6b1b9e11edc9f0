"""What all data for classifiers share, for Lightning: settings, loaders, the way of a batch."""

import functools

from typing_extensions import override

from detkit.data.index.regions import RegionIndex
from detkit.data.loading.loader import Loader, TrainLoader, lightning_position
from detkit.data.loading.region_dataset import RegionAugmentation, RegionDataset, region_augmentation_faults
from detkit.data.loading.sampler import InOrderSampler, KeySampler
from detkit.data.loading.unreadable_images import UnreadableImages
from detkit.data.modules.split_datamodule import SplitDataModule
from detkit.errors import DataError
from detkit.types import ClassBatch, ClassTruth

SMALLEST_SIDE_PX = 8


class ClassificationDataModule(SplitDataModule[RegionIndex]):
    """Train and validation batches of labelled images; where they come from, its subclasses know.

    Every training sample is a pure function of (seed, epoch, row of the image) and of these settings, as in
    ``CocoDataModule``. A validation sample is the whole image in the letterbox of detection: undistorted, on
    the same grey, so a backbone that learns here has seen what it will see in a detector.

    Args:
        root: folder of the data set; None: the demo set.
        image_hw: input size of the network, at least 8 pixels.
        batch_size: training images per device.
        val_batch_size: validation images per device; None: as ``batch_size``.
        num_workers: processes that make samples, for training and for validation; 0: this one.
        seed: of order and augmentation.
        scale: smallest and largest factor on the size at which an image fits the input. It is drawn anywhere
            in the input; what is larger shows any part of it, which is a random resized crop.
        stretch: largest factor on the aspect ratio, up or down; 1: none.
        translate: how far an image may reach beyond the place that ``scale`` leaves it, as a fraction of the
            input's sides. With ``scale`` (1, 1) and ``stretch`` 1, 0.125 is the usual shift by 4 of 32 pixels.
        flip_probability: of a mirror image, left to right.
        hue_degrees: largest turn of the hue.
        saturation: largest change of the saturation, as a fraction.
        brightness: largest change of the brightness, as a fraction.
        cache_mb: decoded images kept in memory, over all workers of a device; for training, and as much
            again for validation.
        max_unreadable: training images that cannot be read after the start and are replaced, in a run, before
            it stops.
        follow_links: whether an image may lie outside of ``root``, where a symbolic link leads to it.

    Raises:
        ValueError: if a value is out of its range; all of them at once.
    """

    def __init__(  # noqa: PLR0913, a recipe's page of settings: flat, so that each is one short override
        self,
        *,
        root: str | None = None,
        image_hw: tuple[int, int] = (64, 64),
        batch_size: int = 64,
        val_batch_size: int | None = None,
        num_workers: int = 2,
        seed: int = 0,
        scale: tuple[float, float] = (0.8, 1.5),
        stretch: float = 1.25,
        translate: float = 0.05,
        flip_probability: float = 0.5,
        hue_degrees: float = 5.0,
        saturation: float = 0.7,
        brightness: float = 0.4,
        cache_mb: int = 1024,
        max_unreadable: int = 10,
        follow_links: bool = False,
    ) -> None:
        super().__init__()
        self.root = root
        self.image_hw = image_hw
        self.batch_size = batch_size
        self.val_batch_size = batch_size if val_batch_size is None else val_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.cache_mb = cache_mb
        self.unreadable = UnreadableImages(max_unreadable)
        self.follow_links = follow_links
        self.augmentation = RegionAugmentation(
            scale=scale,
            stretch=stretch,
            translate=translate,
            flip_probability=flip_probability,
            hue_degrees=hue_degrees,
            saturation=saturation,
            brightness=brightness,
        )
        if faults := self.faults():
            raise ValueError("; ".join(faults))

    def ground_truth(self) -> ClassTruth:
        """The classes of the validation split, for the metric."""
        index = self.index("val")
        return ClassTruth(index.class_names, index.category_ids, index.counts())

    @override
    def train_dataloader(self) -> TrainLoader:
        """Batches from where the trainer stands, or from the first on without one."""
        dataset = RegionDataset(
            self.index("train"), self.augmentation, self.seed, self._cache_bytes(), self.unreadable.limit
        )
        sampler = KeySampler(len(dataset), self.batch_size, (self.image_hw,), self.seed, *self.rank_and_world_size())
        position = functools.partial(lightning_position, self.trainer) if self.trainer else None
        loader = TrainLoader(dataset, sampler, self.num_workers, position, ClassBatch, self.unreadable)
        self.loaders.append(loader)
        return loader

    @override
    def val_dataloader(self) -> Loader:
        """Every validation image once over all ranks."""
        dataset = RegionDataset(self.index("val"), cache_bytes=self._cache_bytes())
        sampler = InOrderSampler(len(dataset), self.val_batch_size, self.image_hw, *self.rank_and_world_size())
        loader = Loader(dataset, sampler, self.num_workers, ClassBatch)
        self.loaders.append(loader)
        return loader

    @override
    def no_split(self, name: str) -> DataError:
        return DataError(f"there is no folder {name} under {self.root}, which a fit needs")

    def faults(self) -> list[str]:
        """Each setting that is out of its range."""
        at_least = {
            "batch_size": (self.batch_size, 1),
            "val_batch_size": (self.val_batch_size, 1),
            "num_workers": (self.num_workers, 0),
            "seed": (self.seed, 0),
            "cache_mb": (self.cache_mb, 0),
            "max_unreadable": (self.unreadable.limit, 0),
        }
        faults = [
            f"{name} must be at least {least}; got {value}"
            for name, (value, least) in at_least.items()
            if value < least
        ]
        if min(self.image_hw) < SMALLEST_SIDE_PX:
            faults.append(f"image_hw must be at least {SMALLEST_SIDE_PX} pixels; got {list(self.image_hw)}")
        return [*faults, *region_augmentation_faults(self.augmentation)]

    def _cache_bytes(self) -> int:
        return self.cache_mb * 2**20 // max(1, self.num_workers)
