"""The index of a split: its annotations as flat arrays, checked and repaired in memory.

``category_id`` is used only here and where formats are read and written; elsewhere a class is its index. The arrays
are flat because forked workers share such arrays without a copy.
"""

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from detkit.data.findings import Findings, Place, Report
from detkit.data.formats.coco_json import CocoColumns
from detkit.data.formats.read_split import read_columns
from detkit.data.images.image_files import bounds_of, check_image_files
from detkit.data.index.box_checks import Boxes, at, check_form, note_boxes, repeated
from detkit.data.index.regions import describe_counts
from detkit.types import GroundTruth


@dataclass(frozen=True, eq=False)
class CocoIndex:
    """What training needs of a split. The arrays are read-only; rows are images in the file's order."""

    folder: Path  # of the images
    image_ids: np.ndarray  # (I,) int64
    sizes_hw: np.ndarray  # (I, 2) int32, upright
    offsets: np.ndarray  # (I + 1,) int64: boxes of image i are the rows offsets[i] to offsets[i + 1]
    boxes: np.ndarray  # (N, 4) float32 xyxy, original pixels, inside the image, none empty
    labels: np.ndarray  # (N,) int64 class index
    crowd: np.ndarray  # (N,) bool
    class_names: tuple[str, ...]
    category_ids: np.ndarray  # (C,) int64, the file's own id of each class index
    fingerprint: str  # SHA-256 of the images and boxes of the annotation file
    report: Report
    name_bytes: bytes  # all file names, one after the other
    name_offsets: np.ndarray  # (I + 1,) int64
    truth: GroundTruth
    annotation_ids: np.ndarray  # (boxes of the truth,) int64, as in the file, for reports

    def __len__(self) -> int:
        return len(self.image_ids)

    def path(self, row: int) -> Path:
        """The image file of a row."""
        return self.folder / self.name_bytes[self.name_offsets[row] : self.name_offsets[row + 1]].decode()

    def file_names(self) -> list[str]:
        """All file names, relative to the folder."""
        return [self.name_bytes[start:end].decode() for start, end in pairwise(self.name_offsets.tolist())]

    def boxes_of(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Copies of the boxes (n, 4), labels (n,) and crowd flags (n,) of an image."""
        here = slice(self.offsets[row], self.offsets[row + 1])
        return self.boxes[here].copy(), self.labels[here].copy(), self.crowd[here].copy()

    def ground_truth(self) -> GroundTruth:
        """The annotations as the file has them, unrepaired and in its order, for evaluation."""
        return self.truth


def load_index(
    annotations: Path, images: Path, root: str | Path | None = None, *, follow_links: bool = False
) -> CocoIndex:
    """Read, check and repair one split. The user's files are not changed.

    Boxes over the edge are clipped; boxes without area and boxes outside the image are left out
    of training. Each repair is counted in the report, and none of them changes the ground truth.

    Args:
        annotations: of any format that ``read_columns`` knows, e.g. a COCO annotation file.
        images: folder that its file names are relative to.
        root: of the data set; an image outside it is an error. None: the folder of images.
        follow_links: whether symbolic links may lead out of the root.

    Raises:
        DataError: one for all faults of the file and the images, named and counted.
    """
    findings = Findings(annotations)
    columns = read_columns(annotations, images, findings)
    for kind, ids in (("images", columns.image_ids), ("categories", columns.category_ids)):
        if not len(ids):
            remedy = "there is nothing to learn or to evaluate; add them"
            findings.fail(f"no-{kind}", f"files without {kind}", f"it lists no {kind}", remedy)
    _check_relations(columns, findings)
    bounds = None if follow_links else bounds_of(images, root)
    headers_read = check_image_files(images, columns.file_names, columns.image_ids, columns.sizes_hw, findings, bounds)
    findings.raise_errors()
    truth = _ground_truth(columns)
    stated = Boxes(truth, columns.annotation_ids, columns.file_names)
    check_form(stated, findings)
    findings.raise_errors()
    boxes, rows = _repair(stated, findings)
    note_boxes(stated, findings)
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
        annotation_ids=_frozen(columns.annotation_ids),
    )


def _check_relations(columns: CocoColumns, findings: Findings) -> None:
    for kind, what, values in (
        ("image-id-repeated", "ids that several images have", columns.image_ids.tolist()),
        ("annotation-id-repeated", "ids that several annotations have", columns.annotation_ids.tolist()),
        ("category-id-repeated", "ids that several categories have", columns.category_ids.tolist()),
        ("image-name-repeated", "file names that several images have", columns.file_names),
    ):
        several = repeated(values)
        places = (_repeated_place(kind, value) for value in several)
        findings.error(kind, what, len(several), places, "each must occur once; renumber, rename or merge them")
    for record, ids, known in (
        ("image", columns.box_image_ids, columns.image_ids),
        ("category", columns.box_category_ids, columns.category_ids),
    ):
        lost = np.flatnonzero(~np.isin(ids, known))
        findings.error(
            f"annotation-{record}-unknown",
            f"annotations whose {record}_id is not among the file's {'images' if record == 'image' else 'categories'}",
            len(lost),
            (at(columns.annotation_ids[row], f" has {ids[row]}") for row in lost),
            f"correct the id, add the {record}, or remove them",
        )


def _repeated_place(kind: str, value: int | str) -> Place:
    file = value if isinstance(value, str) else None
    number = None if isinstance(value, str) else value
    is_image, is_annotation = kind == "image-id-repeated", kind == "annotation-id-repeated"
    return Place(str(value), file, number if is_image else None, number if is_annotation else None)


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


def _repair(of: Boxes, findings: Findings) -> tuple[np.ndarray, np.ndarray]:
    """Usable boxes (N, 4) xyxy float32 sorted by image, and their rows (N,) in the ground truth."""
    truth, stated = of.truth, of.truth.boxes_xywh.copy()
    stated[:, 2:] += stated[:, :2]
    limits_xyxy = np.tile(truth.sizes_hw[truth.image_rows][:, ::-1], 2)
    boxes = np.clip(stated, 0, limits_xyxy).astype(np.float32)
    has_area = (truth.boxes_xywh[:, 2:] > 0).all(axis=1)
    usable = has_area & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    clipped = usable & ((stated < 0) | (stated > limits_xyxy)).any(axis=1)
    for kind, what, where in (
        ("box-over-edge", "boxes over the edge of the image, clipped to it", clipped),
        ("box-without-area", "boxes without area, left out of training", ~has_area),
        ("box-outside-image", "boxes outside of their image, left out of training", has_area & ~usable),
    ):
        findings.repaired(kind, what, where.sum(), of.places(np.flatnonzero(where)))
    rows = np.flatnonzero(usable)
    rows = rows[np.argsort(truth.image_rows[rows], kind="stable")]
    return boxes[rows], rows


def _report(truth: GroundTruth, annotations: Path, headers_read: str, findings: Findings) -> Report:
    per_class = np.bincount(truth.labels, minlength=len(truth.class_names))
    counts = f"{len(truth.image_ids):,} images, {len(truth.labels):,} boxes"
    classes = describe_counts(per_class, truth.class_names)
    return Report(f"{annotations}: {counts}, {classes}; {headers_read}", tuple(findings.found))


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
