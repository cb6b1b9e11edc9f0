"""A COCO data set for Lightning: found, checked, augmented, batched."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from typing_extensions import override

from detkit.data.augment.augmentation import Augmentation, augmentation_faults
from detkit.data.checking.splits_of_run import Explicit, find_splits_or_demo, load_indices, no_split
from detkit.data.images.resize import RESIZES, Resize
from detkit.data.index.coco_index import CocoIndex
from detkit.data.loading.detection_dataset import DetectionDataset
from detkit.data.loading.loader import Loader, TrainLoader, lightning_position
from detkit.data.loading.sampler import SIZE_STEP_PX, InOrderSampler, KeySampler, multi_scale_sizes
from detkit.data.loading.unreadable_images import UnreadableImages
from detkit.data.modules.split_datamodule import SplitDataModule
from detkit.errors import DataError
from detkit.types import GroundTruth


class CocoDataModule(SplitDataModule[CocoIndex]):
    """Train and validation batches of a COCO-format data set.

    Every training sample is a pure function of (seed, epoch, row of the image) and of these settings: the
    number of workers, the size of the cache and a resume in the middle of an epoch change nothing.

    Args:
        root: folder of the data set, in a layout that ``find_layout`` knows; None: the demo set.
        image_hw: input size of the network, multiples of 32.
        resize: how an image comes to that size, in training, evaluation and use: "letterbox" keeps its aspect
            ratio and fills up with grey, "squash" does not keep it.
        batch_size: training images per device.
        val_batch_size: validation images per device; None: as ``batch_size``.
        num_workers: processes that make samples, for training and for validation; 0: this one.
        seed: of order and augmentation.
        train_annotations: annotation file, relative to ``root``, where the layout is another.
        train_images: folder of its images.
        val_annotations: the same for validation.
        val_images: the same for validation.
        mosaic_probability: of a sample made of four images; the others are made of one.
        mixup_probability: of a second image laid over the sample, both at half strength.
        close_mosaic_epochs: in so many last epochs of ``trainer.max_epochs`` a sample is one image, flipped,
            coloured by ``hue_degrees``, ``saturation`` and ``brightness``, resized as in validation. Not mosaic alone
            ends there: so do mixup, affine, zoom-out, IoU crop, photometric, channel shuffle and transforms.
        scale: smallest and largest factor on the size at which an image fits the input. It and the next three
            make the affine of a mosaic; and of a sample of one image, unless zoom-out or crop make that.
        translate: largest shift, as a fraction of the input's sides.
        degrees: largest turn. 0 here and for ``shear`` is three times as fast.
        shear: largest lean in degrees, along both axes.
        flip_probability: of a mirror image, left to right.
        vertical_flip_probability: of one top to bottom.
        hue_degrees: largest turn of the hue. The published YOLOX settings are about 10, 0.2 and 0.12 of these three.
        saturation: largest change of the saturation, as a fraction.
        brightness: largest change of the brightness, as a fraction.
        zoom_out_probability: of a sample of one image that shrinks into a black canvas of 1 to 4 times its sides.
        iou_crop_probability: of a sample of one image that is cut to 0.3 to 1 of each side, with the centre of at
            least one box in it and that box's IoU with the cut above a random least one; after the zoom-out.
        photometric_probability: of each of brightness (by up to 1/8), contrast and saturation (1/2) and hue (18
            degrees), drawn for each image of a sample on its own, before it is placed.
        channel_shuffle_probability: of red, green and blue in random order, likewise. Not for classes that differ
            in nothing but colour. The published RT-DETR settings are 0.5, 0.8, 0.5 and 0.5 of these four, with
            squash, ``min_box_px`` 1, and 0 for mosaic, hue, saturation and brightness.
        multi_scale: smallest and largest factor on ``image_hw``; each training batch draws a size
            of multiples of 32 between them. None: always ``image_hw``.
        transforms: albumentations transforms, applied to the finished sample; they must keep its size.
        min_box_px: a training box that is narrower or lower than this after clipping is dropped,
        min_visible_frac: and one of whose area less than this fraction is inside of the image.
        cache_mb: decoded training images kept in memory, over all workers of a device.
        max_unreadable: training images that cannot be read after the start, or changed their size: the next image of
            the set stands in for each. So many in a run, then it stops. Validation always stops, because its AP would
            be of other images.
        follow_links: whether an image may lie outside of ``root``, where a symbolic link leads to it.

    Raises:
        ValueError: if a value is out of its range, or leaves nothing to do for another; all of them at once.
    """

    def __init__(  # noqa: PLR0913, a recipe's page of settings: flat, so that each is one short override
        self,
        *,
        root: str | None = None,
        image_hw: tuple[int, int] = (640, 640),
        resize: Resize = "letterbox",
        batch_size: int = 16,
        val_batch_size: int | None = None,
        num_workers: int = 2,
        seed: int = 0,
        train_annotations: str | None = None,
        train_images: str | None = None,
        val_annotations: str | None = None,
        val_images: str | None = None,
        mosaic_probability: float = 1.0,
        mixup_probability: float = 0.0,
        close_mosaic_epochs: int = 10,
        scale: tuple[float, float] = (0.5, 1.5),
        translate: float = 0.1,
        degrees: float = 0.0,
        shear: float = 0.0,
        flip_probability: float = 0.5,
        vertical_flip_probability: float = 0.0,
        hue_degrees: float = 5.0,
        saturation: float = 0.7,
        brightness: float = 0.4,
        zoom_out_probability: float = 0.0,
        iou_crop_probability: float = 0.0,
        photometric_probability: float = 0.0,
        channel_shuffle_probability: float = 0.0,
        multi_scale: tuple[float, float] | None = None,
        transforms: Sequence[Any] = (),
        min_box_px: float = 2.0,
        min_visible_frac: float = 0.1,
        cache_mb: int = 1024,
        max_unreadable: int = 10,
        follow_links: bool = False,
    ) -> None:
        super().__init__()
        self.root = root
        self.image_hw = image_hw
        self.resize: Resize = resize
        self.batch_size = batch_size
        self.val_batch_size = batch_size if val_batch_size is None else val_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.explicit: Explicit = {"train": (train_annotations, train_images), "val": (val_annotations, val_images)}
        self.close_mosaic_epochs = close_mosaic_epochs
        self.multi_scale = multi_scale
        self.cache_mb = cache_mb
        self.unreadable = UnreadableImages(max_unreadable)
        self.follow_links = follow_links
        self.augmentation = Augmentation(
            mosaic_probability=mosaic_probability,
            mixup_probability=mixup_probability,
            scale=scale,
            translate=translate,
            degrees=degrees,
            shear=shear,
            flip_probability=flip_probability,
            vertical_flip_probability=vertical_flip_probability,
            hue_degrees=hue_degrees,
            saturation=saturation,
            brightness=brightness,
            zoom_out_probability=zoom_out_probability,
            iou_crop_probability=iou_crop_probability,
            photometric_probability=photometric_probability,
            channel_shuffle_probability=channel_shuffle_probability,
            min_box_px=min_box_px,
            min_visible_frac=min_visible_frac,
            transforms=transforms,
        )
        faults = [*_size_faults(self), *augmentation_faults(self.augmentation)]
        if faults:
            raise ValueError("; ".join(faults))

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
    def train_dataloader(self) -> TrainLoader:
        """Batches from where the trainer stands, or from the first on without one."""
        index = self.index("train")
        augmentation = self.augmentation_until(self.trainer.max_epochs if self.trainer else None)
        cache_bytes = self.cache_mb * 2**20 // max(1, self.num_workers)
        sampler = KeySampler(
            len(index),
            self.batch_size,
            multi_scale_sizes(self.image_hw, self.multi_scale),
            self.seed,
            *self.rank_and_world_size(),
        )
        dataset = DetectionDataset(index, augmentation, self.seed, cache_bytes, self.resize, self.unreadable.limit)
        position = functools.partial(lightning_position, self.trainer) if self.trainer else None
        loader = TrainLoader(dataset, sampler, self.num_workers, position, unreadable=self.unreadable)
        self.loaders.append(loader)
        return loader

    @override
    def val_dataloader(self) -> Loader:
        """Every validation image once over all ranks."""
        index = self.index("val")
        sampler = InOrderSampler(len(index), self.val_batch_size, self.image_hw, *self.rank_and_world_size())
        loader = Loader(DetectionDataset(index, resize=self.resize), sampler, self.num_workers)
        self.loaders.append(loader)
        return loader

    def augmentation_until(self, max_epochs: int | None) -> Augmentation:
        """The augmentation of a run of so many epochs; None or -1: of a run without a last epoch."""
        if max_epochs is None or max_epochs < 0 or self.close_mosaic_epochs == 0:
            return self.augmentation
        return replace(self.augmentation, plain_from_epoch=max_epochs - self.close_mosaic_epochs)


def _size_faults(data: CocoDataModule) -> list[str]:
    image_hw, multi_scale = data.image_hw, data.multi_scale
    at_least = {
        "batch_size": (data.batch_size, 1),
        "val_batch_size": (data.val_batch_size, 1),
        "num_workers": (data.num_workers, 0),
        "seed": (data.seed, 0),
        "close_mosaic_epochs": (data.close_mosaic_epochs, 0),
        "cache_mb": (data.cache_mb, 0),
        "max_unreadable": (data.unreadable.limit, 0),
    }
    faults = [
        f"{name} must be at least {least}; got {value}" for name, (value, least) in at_least.items() if value < least
    ]
    if data.resize not in RESIZES:
        faults.append(f"resize must be {' or '.join(RESIZES)}; got {data.resize!r}")
    if any(side < SIZE_STEP_PX or side % SIZE_STEP_PX for side in image_hw):
        faults.append(f"image_hw must be multiples of {SIZE_STEP_PX}, the largest stride; got {list(image_hw)}")
    elif multi_scale is not None and not multi_scale_sizes(image_hw, multi_scale):
        faults.append(
            f"multi_scale must be the smallest and the largest factor on image_hw, with a multiple of {SIZE_STEP_PX} "
            f"pixels between them; got {list(multi_scale)}"
        )
    for name, paths in data.explicit.items():
        if (paths[0] is None) != (paths[1] is None):
            faults.append(
                f"{name}_annotations and {name}_images must be given together; got {paths[0]!r}, {paths[1]!r}"
            )
    return faults
