"""The index of a split: a COCO annotation file as flat arrays, checked and repaired in memory.

Here and in ``coco_document`` alone ``category_id`` is known; outside a class is its index. Flat
arrays, because forked workers share them without a copy, however many images there are.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detkit.data.coco_document import CocoColumns, read_columns
from detkit.data.findings import Findings, Report
from detkit.data.image_files import check_image_files
from detkit.errors import DataError
from detkit.types import GroundTruth

_CLASSES_NAMED = 10


@dataclass(frozen=True, eq=False)
class CocoIndex:
    """What training needs of a split. The arrays are read-only; rows are images in the file's order."""

    folder: Path  # of the images
    image_ids: np.ndarray  # (I,) int64
    sizes_hw: np.ndarray  # (I, 2) int32, upright
    offsets: np.ndarray  # (I + 1,) int64: boxes of image i are the rows offsets[i] to offsets[i + 1]
    boxes: np.ndarray  # (N, 4) float32 xyxy, original pixels, inside of the image, none empty
    labels: np.ndarray  # (N,) int64 class index
    crowd: np.ndarray  # (N,) bool
    class_names: tuple[str, ...]
    category_ids: np.ndarray  # (C,) int64, the file's own id of each class index
    fingerprint: str  # SHA-256 of all that the annotation file says of images and boxes
    report: Report
    name_bytes: bytes  # all file names, one after the other
    name_offsets: np.ndarray  # (I + 1,) int64
    truth: GroundTruth

    def __len__(self) -> int:
        return len(self.image_ids)

    def path(self, row: int) -> Path:
        """The image file of a row."""
        return self.folder / self.name_bytes[self.name_offsets[row] : self.name_offsets[row + 1]].decode()

    def boxes_of(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Copies of the boxes (n, 4), labels (n,) and crowd flags (n,) of an image."""
        here = slice(self.offsets[row], self.offsets[row + 1])
        return self.boxes[here].copy(), self.labels[here].copy(), self.crowd[here].copy()

    def ground_truth(self) -> GroundTruth:
        """The annotations as the file has them, unrepaired and in its order, for evaluation."""
        return self.truth


def load_index(annotations: Path, images: Path) -> CocoIndex:
    """Read, check and repair one split. The user's files are not changed.

    Boxes over the edge are clipped; boxes without area and boxes outside of the image are left out
    of training. Each repair is counted in the report, and none of them touches the ground truth.

    Args:
        annotations: COCO annotation file.
        images: folder that its file names are relative to.

    Raises:
        DataError: one for all faults of the file and the images, named and counted.
    """
    columns = read_columns(annotations)
    for entries, ids in (("images", columns.image_ids), ("categories", columns.category_ids)):
        if not len(ids):
            raise DataError(f"{annotations}: it lists no {entries}; there is nothing to learn or to evaluate")
    findings = Findings(annotations)
    _check_relations(columns, findings)
    headers_read = check_image_files(images, columns.file_names, columns.image_ids, columns.sizes_hw, findings)
    findings.raise_faults()
    truth = _ground_truth(columns)
    boxes, rows = _repair(truth, columns.annotation_ids, findings)
    _note_oddities(truth, columns.annotation_ids, columns.file_names, findings)
    encoded = [name.encode() for name in columns.file_names]
    counts = np.bincount(truth.image_rows[rows], minlength=len(truth.image_ids))
    return CocoIndex(
        folder=images,
        image_ids=_frozen(truth.image_ids),
        sizes_hw=_frozen(truth.sizes_hw),
        offsets=_frozen(_offsets(counts)),
        boxes=_frozen(boxes),
        labels=_frozen(truth.labels[rows]),
        crowd=_frozen(truth.crowd[rows]),
        class_names=truth.class_names,
        category_ids=_frozen(truth.category_ids),
        fingerprint=_fingerprint(truth, columns.file_names),
        report=_report(truth, annotations, headers_read, findings),
        name_bytes=b"".join(encoded),
        name_offsets=_frozen(_offsets(np.array([len(name) for name in encoded], dtype=np.int64))),
        truth=truth,
    )


def _check_relations(columns: CocoColumns, findings: Findings) -> None:
    for what, ids in (("images", columns.image_ids), ("annotations", columns.annotation_ids)):
        _check_unique(f"ids that several {what} have", ids, findings)
    _check_unique("ids that several categories have", columns.category_ids, findings)
    _check_unique("file names that several images have", np.array(columns.file_names), findings)
    for record, ids, known in (
        ("image", columns.box_image_ids, columns.image_ids),
        ("category", columns.box_category_ids, columns.category_ids),
    ):
        lost = np.flatnonzero(~np.isin(ids, known))
        findings.fault(
            f"annotations whose {record}_id is not among the file's {'images' if record == 'image' else 'categories'}",
            len(lost),
            (f"annotation {columns.annotation_ids[row]} has {ids[row]}" for row in lost),
            f"correct the id, add the {record}, or remove them",
        )


def _check_unique(what: str, values: np.ndarray, findings: Findings) -> None:
    unique, counts = np.unique(values, return_counts=True)
    repeated = unique[counts > 1]
    findings.fault(what, len(repeated), map(str, repeated), "each must stand once: renumber, rename or merge them")


def _ground_truth(columns: CocoColumns) -> GroundTruth:
    order = np.argsort(columns.image_ids)
    return GroundTruth(
        image_ids=columns.image_ids,
        sizes_hw=columns.sizes_hw,
        boxes_xywh=_frozen(columns.boxes_xywh),
        areas=_frozen(columns.areas),
        crowd=_frozen(columns.crowd),
        labels=_frozen(np.searchsorted(columns.category_ids, columns.box_category_ids)),
        image_rows=_frozen(order[np.searchsorted(columns.image_ids, columns.box_image_ids, sorter=order)]),
        category_ids=columns.category_ids,
        class_names=columns.class_names,
    )


def _repair(truth: GroundTruth, annotation_ids: np.ndarray, findings: Findings) -> tuple[np.ndarray, np.ndarray]:
    """Usable boxes (N, 4) xyxy float32 sorted by image, and their rows (N,) in the ground truth."""
    stated = truth.boxes_xywh.copy()
    stated[:, 2:] += stated[:, :2]
    limits_xyxy = np.tile(truth.sizes_hw[truth.image_rows][:, ::-1], 2)
    boxes = np.clip(stated, 0, limits_xyxy).astype(np.float32)
    has_area = (truth.boxes_xywh[:, 2:] > 0).all(axis=1)
    usable = has_area & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    clipped = usable & ((stated < 0) | (stated > limits_xyxy)).any(axis=1)
    for what, where in (
        ("boxes over the edge of the image, clipped to it", clipped),
        ("boxes without area, left out of training", ~has_area),
        ("boxes outside of their image, left out of training", has_area & ~usable),
    ):
        findings.oddity(what, where.sum(), (f"annotation {annotation}" for annotation in annotation_ids[where]))
    rows = np.flatnonzero(usable)
    rows = rows[np.argsort(truth.image_rows[rows], kind="stable")]
    return boxes[rows], rows


def _note_oddities(truth: GroundTruth, annotation_ids: np.ndarray, file_names: list[str], findings: Findings) -> None:
    copies = _copies(np.column_stack((truth.image_rows, truth.labels, truth.boxes_xywh)))
    findings.oddity("exact copies of a box", len(copies), (f"annotation {annotation_ids[row]}" for row in copies))
    findings.oddity("crowd boxes, neither object nor background in training", truth.crowd.sum(), ())
    empty = np.flatnonzero(np.bincount(truth.image_rows, minlength=len(truth.image_ids)) == 0)
    findings.oddity("images without boxes, used as background", len(empty), (file_names[row] for row in empty))
    unused = np.flatnonzero(np.bincount(truth.labels, minlength=len(truth.class_names)) == 0)
    findings.oddity("classes without boxes", len(unused), (truth.class_names[label] for label in unused))
    names, counts = np.unique(truth.class_names, return_counts=True)
    findings.oddity("class names that several categories have", (counts > 1).sum(), map(str, names[counts > 1]))
    zero = (annotation_ids == 0).sum()
    findings.oddity("annotation id 0, whose match pycocotools would not count and detkit does", zero, ())


def _copies(rows: np.ndarray) -> np.ndarray:
    """Rows that equal an earlier one."""
    order = np.lexsort(rows.T)  # stable, so the earliest of equal rows comes first
    ranked = rows[order]
    return np.sort(order[1:][(ranked[1:] == ranked[:-1]).all(axis=1)])


def _report(truth: GroundTruth, annotations: Path, headers_read: str, findings: Findings) -> Report:
    per_class = np.bincount(truth.labels, minlength=len(truth.class_names))
    largest = np.argsort(-per_class, kind="stable")[:_CLASSES_NAMED]
    shown = ", ".join(f"{truth.class_names[label]} {per_class[label]:,}" for label in largest)
    more = ", ..." if len(per_class) > _CLASSES_NAMED else ""
    counts = f"{len(truth.image_ids):,} images, {len(truth.labels):,} boxes, {len(per_class):,} classes"
    return Report(f"{annotations}: {counts} ({shown}{more}); {headers_read}", tuple(findings.oddities))


def _fingerprint(truth: GroundTruth, file_names: list[str]) -> str:
    digest = hashlib.sha256()
    for array in truth[:-1]:  # all but the class names
        digest.update(np.ascontiguousarray(array).data)
    digest.update("\0".join((*truth.class_names, "", *file_names)).encode())
    return digest.hexdigest()


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
