"""YOLO-txt: a text file for each image, a line ``class cx cy w h`` for each box, in shares of the image's size.

A line of more numbers is a polygon (``class x1 y1 x2 y2 x3 y3 ...``), whose bounding box is taken, or, where
data.yaml has ``kpt_shape``, a box followed by its keypoints, which are left. A sixth number alone would be a
confidence: such files are what a detector found, not labels.

Source: https://docs.ultralytics.com/datasets/detect/ and /segment/ and /pose/, the pages of the format.
"""

from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from detkit.data.coco_document import CocoColumns
from detkit.data.findings import Findings, Place
from detkit.data.image_files import list_folder
from detkit.data.label_files import (
    COMMON_RULES,
    IMAGE_SUFFIXES,
    LabelFile,
    Note,
    Rule,
    list_files,
    places_of,
    read_labels,
    read_lines,
    read_sizes,
    shared_stems,
    tell,
    to_columns,
)
from detkit.data.yolo_yaml import SPLITS, find_yaml, is_there, read_yaml
from detkit.errors import DataError

CLASSES_FILE = "classes.txt"
_DIGITS = 1e-5  # shares of the image: what five digits leave open
_ROUNDING = 0.01  # shares of the image that a box may reach over the edge; more is another unit
_UNITS = ("", "lost-polygon", "lost-keypoints")  # kinds of line that hold a box
_RULES = {
    **COMMON_RULES,
    "listed-outside": Rule("error", "listed images outside of the data set's folder", "copy them into it"),
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


class YoloSet(NamedTuple):
    """The images of a split and where their labels lie."""

    class_names: dict[int, str]
    keypoint_columns: int
    image_names: list[str]  # relative to the image folder
    label_root: Path
    label_names: list[str]  # of each image, relative to the root
    orphans: list[str]  # label files without an image
    outside: list[str]  # images that a list names outside of the data set


def read_yolo(annotations: Path, images: Path, findings: Findings) -> CocoColumns:
    """A split in YOLO's format; classes keep their numbers, images and boxes are numbered from 1.

    Args:
        annotations: the folder of label files, or ``data.yaml/train`` for what data.yaml calls train.
        images: the folder that the names of images are relative to.
        findings: takes what is wrong or odd with the files and lines.

    Raises:
        DataError: one for all errors of files and lines.
    """
    found = _from_yaml(annotations, images) if is_yaml_split(annotations) else _from_folders(annotations, images)
    there = _present(found.label_root, found.label_names)
    paths = [found.label_root / name if name in there else None for name in found.label_names]
    if found.image_names and not there:
        number, first = len(paths), found.label_root / found.label_names[0]
        raise DataError(f"none of the {number:,} images in {images} has a label file; {first} is missing, for one")
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
    findings.raise_errors()
    boxes_xywh = _to_pixels(files, sizes_hw)
    return to_columns(
        files, found.label_names, found.image_names, sizes_hw, boxes_xywh, found.class_names, ":", findings
    )


def is_yaml_split(annotations: Path) -> bool:
    """Whether a path names a split inside of a data.yaml: ``data.yaml/train``."""
    return annotations.name in SPLITS and annotations.parent.suffix in (".yaml", ".yml")


def _present(root: Path, names: list[str]) -> set[str]:
    """Those of the label files that are there; their folders are listed, which is faster than to ask for each."""
    parents = {PurePosixPath(name).parent for name in names}
    there = {(parent / name).as_posix() for parent in parents for name in list_folder(root / parent)}
    return there.intersection(names)


def parse_lines(content: bytes, class_names: dict[int, str], keypoint_columns: int) -> LabelFile:
    """The boxes of a label file as (cx, cy, w, h) in shares of the image.

    Raises:
        DataError: if it is no text.
    """
    labels = LabelFile([], [], [], [], [])
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"no text: byte {error.start} is no UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            kind = _take_line(line, number, labels, class_names, keypoint_columns)
            if kind:
                labels.notes.append(Note(kind, number, "" if kind.startswith("lost-") else f"{line.strip()!r:.80}"))
    return labels


def _take_line(line: str, number: int, labels: LabelFile, class_names: dict[int, str], keypoint_columns: int) -> str:
    """Take a line's box; the kind of note that the line deserves, empty for none."""
    try:
        label, *numbers = map(float, line.split())
    except ValueError:
        return "label-line"
    kind = _kind_of(len(numbers), keypoint_columns)
    box = numbers[:4] if kind == "lost-keypoints" else numbers
    if "_" in line or not label.is_integer():  # float() reads 0_5 as 5
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
    """What a line with this many numbers after its class is, empty for a box."""
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


def _to_pixels(files: list[LabelFile], sizes_hw: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) xywh. A side that the digits of the text put beside the edge lies on it."""
    boxes = np.array([box for file in files for box in file.boxes], dtype=np.float64).reshape(-1, 4)
    sides = np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), axis=1)
    nearest = np.round(sides).clip(0, 1)
    sides = np.where(np.abs(sides - nearest) < _DIGITS, nearest, sides)
    sides *= np.tile(np.repeat(sizes_hw[:, ::-1], [len(file.numbers) for file in files], axis=0), 2)
    sides[:, 2:] -= sides[:, :2]
    return sides


def _from_folders(annotations: Path, images: Path) -> YoloSet:
    """A folder of labels and one of images, alike inside; the names of the classes lie there or above."""
    names, keypoint_columns = _find_classes(annotations)
    image_names = list_files(images, IMAGE_SUFFIXES)
    label_names = [_label_beside(name) for name in image_names]
    orphans = set(list_files(annotations, (".txt",))) - set(label_names)
    return YoloSet(names, keypoint_columns, image_names, annotations, label_names, _without_classes(orphans), [])


def _from_yaml(annotations: Path, images: Path) -> YoloSet:
    """What data.yaml names: folders, and files that list images; the last ``images`` of a path becomes ``labels``."""
    content = read_yaml(annotations.parent)
    root = annotations.parent.parent
    if missing := content.missing(annotations.name):
        raise DataError(
            f"{content.file}: {annotations.name}: {', '.join(missing)}: not there, or outside of {root}; "
            "correct path and the names, which are relative to it"
        )
    paths: dict[Path, None] = {}  # relative to the root, in order, each once
    orphans: set[str] = set()
    outside: list[str] = []
    for member in content.members(annotations.name):
        here = member.relative_to(root)
        if member.is_dir():
            inside = [here / name for name in list_files(member, IMAGE_SUFFIXES)]
            folder = _label_folder(here)
            wanted = {_label_of(path) for path in inside}
            labels = list_files(root / folder, (".txt",)) if (root / folder).is_dir() else []
            orphans |= {(folder / name).as_posix() for name in labels} - wanted
            paths |= dict.fromkeys(inside)
        else:
            listed = [(line, _listed(line, member, root)) for line in read_lines(member)]
            outside += [f"{member.name}: {line}" for line, path in listed if path is None]
            paths |= dict.fromkeys(path for _, path in listed if path is not None)
    ordered = sorted(paths)
    try:
        image_names = [path.relative_to(images.relative_to(root)).as_posix() for path in ordered]
    except ValueError as error:
        raise DataError(f"{images}: must be the folder that holds all images of {annotations}: {error}") from error
    return YoloSet(
        content.class_names,
        content.keypoint_columns,
        image_names,
        root,
        [_label_of(path) for path in ordered],
        _without_classes(orphans),
        outside,
    )


def _listed(line: str, file: Path, root: Path) -> Path | None:
    """The image that a line of a list names, relative to the root; None if it lies elsewhere.

    Names are relative to the list's folder (``./images/a.jpg``) or to the root; an absolute one may lead into it.
    """
    parts = PurePosixPath(line.replace("\\", "/"))
    if ".." in parts.parts or "\0" in line:
        return None
    if parts.is_absolute():
        path = Path(parts)
        return path.relative_to(root.absolute()) if path.is_relative_to(root.absolute()) else None
    beside = file.parent / parts
    return (beside if is_there(beside) else root / parts).relative_to(root)


def _label_of(path: Path) -> str:
    """The label file of an image: ``images/train/a.jpg`` to ``labels/train/a.txt``; beside it without ``images``."""
    return (_label_folder(path.parent) / _label_beside(path.name)).as_posix()


def _label_folder(folder: Path) -> Path:
    parts = list(folder.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def _label_beside(name: str) -> str:
    return PurePosixPath(name).with_suffix(".txt").as_posix()


def _without_classes(names: set[str]) -> list[str]:
    return sorted(name for name in names if PurePosixPath(name).name != CLASSES_FILE)


def _find_classes(folder: Path) -> tuple[dict[int, str], int]:
    """Class names and numbers of keypoints by the nearest data.yaml or classes.txt, up to two folders above."""
    above = [folder, *folder.absolute().parents[:2]]
    for place in above:
        if (place / CLASSES_FILE).is_file():
            return dict(enumerate(read_lines(place / CLASSES_FILE))), 0
        if file := find_yaml(place):
            content = read_yaml(file)
            return content.class_names, content.keypoint_columns
    raise DataError(
        f"{folder}: the names of the classes are missing; put data.yaml or {CLASSES_FILE} (a name in each line) "
        f"into one of {', '.join(map(str, above))}"
    )
