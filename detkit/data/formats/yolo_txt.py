"""YOLO-txt: a text file for each image, with a line ``class cx cy w h`` for each box, divided by the image's size.

A line of more numbers is a polygon (``class x1 y1 x2 y2 x3 y3 ...``), whose bounding box is taken. If data.yaml has
``kpt_shape``, it can also be a box followed by keypoints, which are not read. A line of six numbers ends with a
confidence: such a file is the output of a detector and is refused.

Source: https://docs.ultralytics.com/datasets/detect/ and /segment/ and /pose/, the pages of the format.
"""

from pathlib import Path

import numpy as np

from detkit.data.findings import Findings, Place
from detkit.data.formats.coco_json import CocoColumns
from detkit.data.formats.label_files import (
    COMMON_RULES,
    LabelFile,
    Note,
    Rule,
    places_of,
    read_labels,
    read_sizes,
    shared_stems,
    tell,
    to_columns,
)
from detkit.data.formats.yolo_folders import find_set
from detkit.errors import DataError

_DIGITS = 1e-5  # normalised; rounding error of five digits
_FEW = 10  # with at least this many boxes a suspicion is an error
_ROUNDING = 0.01  # normalised; a box may reach so far over the edge, a larger number is of another unit
_UNITS = ("", "lost-polygon", "lost-keypoints")  # kinds of line that hold a box
_RULES = {
    **COMMON_RULES,
    "listed-outside": Rule("error", "listed images outside of the data set's folder", "copy them into it"),
    "label-no-text": Rule("error", "label files that are no text in UTF-8", "write them again, or copy them again"),
    "label-line": Rule(
        "error", "lines that are no label", "a line is class cx cy w h, or class x1 y1 x2 y2 x3 y3 ... for a polygon"
    ),
    "label-class": Rule("error", "lines whose class has no name", "name it in data.yaml or classes.txt, or correct it"),
    "label-not-normalised": Rule(
        "error", "lines with numbers outside of [0, 1]", "divide by the image's width and height, or correct them"
    ),
    "label-confidence": Rule(
        "error",
        "lines with a sixth number, as a detector's output has its confidence there",
        "labels have five; remove the sixth if these are labels",
    ),
    "lost-polygon": Rule("notice", "polygons, of which the bounding box is taken"),
    "lost-keypoints": Rule("notice", "boxes with keypoints, which are not read"),
}


def read_yolo(annotations: Path, images: Path, findings: Findings) -> CocoColumns:
    """A split in YOLO's format. Classes keep their numbers; images and boxes are numbered from 1.

    Args:
        annotations: the folder of label files, or ``data.yaml/train`` for what data.yaml calls train.
        images: the folder that the names of images are relative to.
        findings: takes errors and notices about files and lines.

    Raises:
        DataError: one for all errors of files and lines.
    """
    found = find_set(annotations, images)
    paths = found.labels
    if found.image_names and not any(paths):
        number, first = len(paths), found.label_root / found.label_names[0]
        raise DataError(f"none of the {number:,} images in {images} has a label file; {first} is missing, for example")
    files = read_labels(paths, lambda content: parse_lines(content, found.class_names, found.keypoint_columns))
    sizes_hw, broken = read_sizes(images, found.image_names, list(range(len(files))))
    rows = [row for row, path in enumerate(paths) if path is None]
    places = {
        **places_of(files, found.label_names, found.image_names, ":"),
        "image-unreadable": broken,
        "shared-label": list(shared_stems(found.image_names)),
        "label-without-image": list(map(Place, found.orphans)),
        "listed-outside": list(map(Place, found.outside)),
        "no-label-file": [Place(found.image_names[row], found.image_names[row], row + 1) for row in rows],
    }
    tell(findings, _RULES, places)
    _suspect_corners(files, findings)
    findings.raise_errors()
    boxes_xywh = _to_pixels(files, sizes_hw)
    return to_columns(
        files, found.label_names, found.image_names, sizes_hw, boxes_xywh, found.class_names, ":", findings
    )


def parse_lines(content: bytes, class_names: dict[int, str], keypoint_columns: int) -> LabelFile:
    """The boxes of a label file as normalised (cx, cy, w, h)."""
    labels = LabelFile([], [], [], [], [])
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        return labels._replace(notes=[Note("label-no-text", 0, f"byte {error.start} is no UTF-8")])
    for number, line in enumerate(lines, start=1):
        if line.strip():
            kind = _take_line(line, number, labels, class_names, keypoint_columns)
            if kind:
                labels.notes.append(Note(kind, number, "" if kind.startswith("lost-") else f"{line.strip()!r:.80}"))
    return labels


def _take_line(line: str, number: int, labels: LabelFile, class_names: dict[int, str], keypoint_columns: int) -> str:
    """Add a line's box to the labels; returns the kind of note about the line, empty for none."""
    try:
        label, *numbers = map(float, line.split())
    except ValueError:
        return "label-line"
    kind = _kind_of(len(numbers), keypoint_columns)
    box = numbers[:4] if kind == "lost-keypoints" else numbers
    if "_" in line or not line.isascii() or not label.is_integer():  # float() accepts 0_5 and digits of other scripts
        kind = "label-line"
    elif kind in _UNITS and not all(-_ROUNDING <= value <= 1 + _ROUNDING for value in box):  # nor is NaN
        kind = "label-not-normalised"
    elif kind in _UNITS and label not in class_names:
        kind = "label-class"
    if kind not in _UNITS:
        return kind
    labels.numbers.append(number)
    labels.classes.append(int(label))
    labels.boxes.append(_box_around(numbers) if kind == "lost-polygon" else (box[0], box[1], box[2], box[3]))
    labels.crowd.append(False)
    return kind


def _kind_of(count: int, keypoint_columns: int) -> str:
    """The kind of a line with this many numbers after its class, empty for a box."""
    if keypoint_columns and count == 4 + keypoint_columns:
        return "lost-keypoints"
    if count == 5:
        return "label-confidence"
    if count >= 6 and count % 2 == 0:
        return "lost-polygon"
    return "" if count == 4 else "label-line"


def _box_around(numbers: list[float]) -> tuple[float, float, float, float]:
    left, right, top, bottom = min(numbers[::2]), max(numbers[::2]), min(numbers[1::2]), max(numbers[1::2])
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def _suspect_corners(files: list[LabelFile], findings: Findings) -> None:
    """Refuse a set in which nearly all boxes look like (x1, y1, x2, y2), which a single line cannot show."""
    boxes = np.array([box for file in files for box in file.boxes], dtype=np.float64).reshape(-1, 4)
    corners = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    beyond = ((boxes[:, :2] - boxes[:, 2:] / 2 < -0.1) | (boxes[:, :2] + boxes[:, 2:] / 2 > 1.1)).any(axis=1)
    if len(boxes) >= _FEW and corners.mean() >= 0.95 and beyond.mean() >= 0.1:
        findings.error(
            "label-corners",
            f"boxes over the edge by more than a tenth of the image, of {len(boxes):,}, which look like x1 y1 x2 y2",
            beyond.sum(),
            (),
            "YOLO's are the centre and the size: cx cy w h; write the lines again",
        )


def _to_pixels(files: list[LabelFile], sizes_hw: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) xywh in pixels. A side that is beside the image's edge by a rounding error is put on the edge."""
    boxes = np.array([box for file in files for box in file.boxes], dtype=np.float64).reshape(-1, 4)
    sides = np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), axis=1)
    edges = np.round(sides).clip(0, 1)
    sides = np.where(np.abs(sides - edges) < _DIGITS, edges, sides)
    sides *= np.tile(np.repeat(sizes_hw[:, ::-1], [len(file.numbers) for file in files], axis=0), 2)
    sides[:, 2:] -= sides[:, :2]
    return sides
