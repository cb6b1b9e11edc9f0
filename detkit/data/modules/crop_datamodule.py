"""Batches of the boxes of a COCO data set for Lightning: a classifier learns what a detector must know."""

import math

from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from detkit.data.checking.splits_of_run import Explicit, find_splits_or_demo, load_indices, no_split
from detkit.data.index.crops import crop_regions
from detkit.data.index.regions import RegionIndex
from detkit.data.modules.classification_datamodule import ClassificationDataModule
from detkit.errors import DataError


class CropDataModule(ClassificationDataModule):
    """Every box of a COCO-format data set as a labelled image. Crowd boxes are left out.

    A target's image_id is the place of the crop among those of its split, in the order of the file's images,
    from 0. An image is decoded once for all its crops as long as it stays in the cache, so a set that
    ``cache_mb`` holds is many times as fast.

    Args:
        root: folder of the data set, in a layout that ``find_layout`` knows; None: the demo set.
        image_hw: as the following ones up to ``max_unreadable``, see ``ClassificationDataModule``; "image" there is
            the crop.
        train_annotations: annotation file, relative to ``root``, where the layout is another.
        train_images: folder of its images.
        val_annotations: the same for validation.
        val_images: the same for validation.
        margin: context on every side of a box, as a fraction of its width or height; cut at the image's edge.
        min_box_px: a box that is narrower or lower than this, in pixels of the file, is left out.
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
        train_annotations: str | None = None,
        train_images: str | None = None,
        val_annotations: str | None = None,
        val_images: str | None = None,
        margin: float = 0.1,
        min_box_px: float = 8.0,
        follow_links: bool = False,
    ) -> None:
        self.explicit: Explicit = {"train": (train_annotations, train_images), "val": (val_annotations, val_images)}
        self.margin = margin
        self.min_box_px = min_box_px
        super().__init__(  # last, because it says what is wrong with all of them
            root=root,
            image_hw=image_hw,
            batch_size=batch_size,
            val_batch_size=val_batch_size,
            num_workers=num_workers,
            seed=seed,
            scale=scale,
            stretch=stretch,
            translate=translate,
            flip_probability=flip_probability,
            hue_degrees=hue_degrees,
            saturation=saturation,
            brightness=brightness,
            cache_mb=cache_mb,
            max_unreadable=max_unreadable,
            follow_links=follow_links,
        )

    @override
    def read_splits(self) -> dict[str, RegionIndex]:
        splits = find_splits_or_demo(self.root, self.explicit)
        crops = {
            name: crop_regions(index, splits[name].annotations, self.margin, self.min_box_px)
            for name, index in load_indices(splits, self.root, follow_links=self.follow_links).items()
        }
        for name, regions in crops.items():
            rank_zero_info(f"{name}: {regions.report}")
        return crops

    @override
    def no_split(self, name: str) -> DataError:
        return no_split(name, self.root)

    @override
    def faults(self) -> list[str]:
        found = super().faults()
        found += [
            f"{name} must be a number from 0 on; got {value}"
            for name, value in (("margin", self.margin), ("min_box_px", self.min_box_px))
            if not 0 <= value < math.inf
        ]
        found += [
            f"{name}_annotations and {name}_images must be given together; got {paths[0]!r}, {paths[1]!r}"
            for name, paths in self.explicit.items()
            if (paths[0] is None) != (paths[1] is None)
        ]
        return found
