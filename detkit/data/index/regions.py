"""Labelled regions of image files, which a classifier learns from, as flat arrays like those of ``CocoIndex``."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detkit.data.findings import Report

_CLASSES_NAMED = 10


@dataclass(frozen=True, eq=False)
class RegionIndex:
    """The samples of a split: rows are regions. Workers share the arrays, which are never changed."""

    folder: Path  # of the images
    name_bytes: bytes  # all file names, one after the other
    name_offsets: np.ndarray  # (I + 1,) int64
    image_ids: np.ndarray  # (I,) int64, named in errors
    sizes_hw: np.ndarray  # (I, 2) int32, upright; 0 where the header was not read yet
    image_rows: np.ndarray  # (N,) int64, the image of each region
    regions: np.ndarray | None  # (N, 4) int32 xyxy, whole pixels inside of the image; None: the whole images
    labels: np.ndarray  # (N,) int64 class index
    class_names: tuple[str, ...]
    category_ids: np.ndarray  # (C,) int64, the data set's own id of each class index
    fingerprint: str  # SHA-256 of the annotations
    report: Report

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, image_row: int) -> Path:
        """The image file of a row."""
        return self.folder / os.fsdecode(
            self.name_bytes[self.name_offsets[image_row] : self.name_offsets[image_row + 1]]
        )

    def counts(self) -> np.ndarray:
        """(C,) int64 regions of each class."""
        return np.bincount(self.labels, minlength=len(self.class_names))


def describe_counts(counts: np.ndarray, class_names: tuple[str, ...]) -> str:
    """The number of classes, and the largest of them with their counts."""
    largest = np.argsort(-counts, kind="stable")[:_CLASSES_NAMED]
    shown = ", ".join(f"{class_names[label]} {counts[label]:,}" for label in largest)
    return f"{len(class_names):,} classes ({shown}{', ...' if len(class_names) > _CLASSES_NAMED else ''})"
