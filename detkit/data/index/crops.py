"""Every box of a detection data set as a labelled region, for training a classifier."""

from pathlib import Path

import numpy as np

from detkit.data.findings import Findings, Place, Report
from detkit.data.index.coco_index import CocoIndex
from detkit.data.index.regions import RegionIndex, describe_counts
from detkit.errors import DataError


def crop_regions(index: CocoIndex, annotations: Path, margin: float = 0.1, min_box_px: float = 8) -> RegionIndex:
    """The boxes of a split with some context around them, in the order of its images.

    Args:
        index: of the split.
        annotations: its file, named in errors.
        margin: context on every side, as a fraction of the box's width or height; it ends at the image's edge.
        min_box_px: narrower or lower boxes are left out; in pixels of the image file.

    Raises:
        DataError: if no box is left.
    """
    image_rows = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    sides = index.boxes[:, 2:] - index.boxes[:, :2]
    small = ~index.crowd & (sides < min_box_px).any(axis=1)
    keep = ~index.crowd & ~small
    if not keep.any():
        raise DataError(
            f"{annotations}: none of its {len(keep):,} boxes makes a crop: {index.crowd.sum():,} are crowd boxes, "
            f"{small.sum():,} are narrower or lower than {min_box_px:g} px; lower data.min_box_px, or label more boxes"
        )
    labels = index.labels[keep]
    findings = Findings(annotations)
    findings.notice("crop-crowd", "crowd boxes, of which no crop is made", index.crowd.sum(), ())
    findings.notice(
        "crop-too-small",
        f"boxes narrower or lower than {min_box_px:g} px, of which no crop is made",
        small.sum(),
        (
            Place(f"{index.path(image_rows[row]).name} {sides[row, 0]:.0f} x {sides[row, 1]:.0f}")
            for row in np.flatnonzero(small)
        ),
    )
    counts = np.bincount(labels, minlength=len(index.class_names))
    lost = np.setdiff1d(index.labels, labels)
    lost_names = (Place(index.class_names[label]) for label in lost)
    findings.notice("crop-lost-class", "classes whose boxes are all left out", len(lost), lost_names)
    described = describe_counts(counts, index.class_names)
    return RegionIndex(
        folder=index.folder,
        name_bytes=index.name_bytes,
        name_offsets=index.name_offsets,
        image_ids=index.image_ids,
        sizes_hw=index.sizes_hw,
        image_rows=image_rows[keep],
        regions=_enlarged(index.boxes[keep], margin, index.sizes_hw[image_rows[keep]]),
        labels=labels,
        class_names=index.class_names,
        category_ids=index.category_ids,
        fingerprint=index.fingerprint,
        report=Report(f"{len(labels):,} crops of {described}", tuple(findings.found)),
    )


def _enlarged(boxes: np.ndarray, margin: float, sizes_hw: np.ndarray) -> np.ndarray:
    """(N, 4) int32 xyxy: with the margin, rounded outwards to whole pixels, clipped to the image."""
    context = margin * (boxes[:, 2:] - boxes[:, :2])
    corners = np.concatenate([np.floor(boxes[:, :2] - context), np.ceil(boxes[:, 2:] + context)], axis=1)
    return np.clip(corners, 0, np.tile(sizes_hw[:, ::-1], 2)).astype(np.int32)
