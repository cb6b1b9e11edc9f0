"""The boxes of a COCO data set as images of a classifier."""

import math
from dataclasses import dataclass

from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from detkit.data.checking.splits_of_run import find_splits_or_demo, load_indices, no_split
from detkit.data.index.crops import crop_regions
from detkit.data.index.regions import RegionIndex
from detkit.data.modules.classification_datamodule import ClassificationDataModule
from detkit.data.modules.coco_splits import CocoSplits
from detkit.errors import DataError


@dataclass(kw_only=True, eq=False, repr=False)
class CropDataModule(CocoSplits, ClassificationDataModule):
    """Every box of a COCO-format data set as a labelled image. Crowd boxes are left out.

    A target's image_id is the place of the crop among those of its split, in the order of the file's images,
    from 0. An image is decoded once for all its crops as long as it stays in the cache, so a set that
    ``cache_mb`` holds is many times as fast.

    Args:
        root: folder of the data set, in a layout that ``find_layout`` knows; None: the demo set. The arguments that
            are not described here are those of ``ClassificationDataModule``, for which a crop is an image, and of
            ``CocoSplits``.
        margin: context on every side of a box, as a fraction of its width or height; cut at the image's edge.
        min_box_px: a box that is narrower or lower than this, in pixels of the file, is left out.

    Raises:
        ValueError: if a value is out of its range; all of them at once.
    """

    margin: float = 0.1
    min_box_px: float = 8.0

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
        return [*found, *self.split_faults()]
