"""What YOLO-txt and Pascal VOC have in common: one label file for each image, with the image's name."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from detkit.data.findings import Findings, Level, Place
from detkit.data.formats.coco_json import CocoColumns
from detkit.data.images.header_cache import read_headers
from detkit.data.images.threads import in_threads
from detkit.errors import DataError
from detkit.files import open_regular

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"))
MAX_BYTES = 8 * 2**20  # of one label file; those in use have some kilobytes


class Note(NamedTuple):
    """A finding in one label file: its kind, where in the file, and the value."""

    kind: str
    number: int = 0  # line or object, from 1; 0: the file as a whole
    text: str = ""


class LabelFile(NamedTuple):
    """The content of one label file, with boxes and classes as the format has them."""

    numbers: list[int]  # line or object of each box, from 1
    classes: list[Any]  # of YOLO numbers; of VOC names, which its reader numbers
    boxes: list[tuple[float, float, float, float]]
    crowd: list[bool]
    notes: list[Note]
    size_hw: tuple[int, int] | None = None  # of the image, if the file has it


class Rule(NamedTuple):
    """How the notes of one kind are reported."""

    level: Level
    what: str
    remedy: str = ""


NO_LABELS = LabelFile([], [], [], [], [])
COMMON_RULES = {
    "label-unreadable": Rule("error", "label files that cannot be read", "replace them, or remove them"),
    "label-without-image": Rule(
        "error", "label files without an image", "put their images there, or remove the label files"
    ),
    "shared-label": Rule("error", "images of one name, which share a label file", "rename or remove all but one"),
    "image-unreadable": Rule("error", "image files that cannot be read", "replace them, or remove them"),
    "no-label-file": Rule("notice", "images without a label file, used as background"),
}


def list_files(folder: Path, suffixes: Iterable[str]) -> list[str]:
    """Files with these suffixes in a folder and its subfolders, sorted, relative to it; hidden files are left out.

    Raises:
        DataError: if a folder cannot be listed, or a file name is no UTF-8.
    """
    found = walk_files(folder, suffixes)
    if strange := [name for name in found if name != name.encode(errors="ignore").decode()]:
        raise DataError(f"{folder}: {len(strange):,} file names are no UTF-8, such as {strange[0]!r}; rename the files")
    return found


def walk_files(folder: Path, suffixes: Iterable[str], *, follow_links: bool = False) -> list[str]:
    """As ``list_files``, but names may be any bytes, and folders behind links can be included, each folder once.

    Raises:
        DataError: if a folder cannot be listed.
    """
    wanted, found, links, seen = tuple(suffixes), [], [str(folder)], set()
    while links:
        for parent, folders, files in os.walk(links.pop(0), onerror=_refuse):
            real = os.path.realpath(parent)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if follow_links:  # linked folders come after the others
                links += [place for name in folders if os.path.islink(place := os.path.join(parent, name))]  # noqa: PTH114, PTH118
            beneath = Path(parent).relative_to(folder)
            shown = (name for name in files if name.lower().endswith(wanted) and not name.startswith("."))
            found += [(beneath / name).as_posix() for name in shown]
    return sorted(found)


def read_limited(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a text file.

    Raises:
        DataError: if it cannot be read, or is larger than ``max_bytes``.
    """
    try:
        with open_regular(path, max_bytes) as file:
            return file.read(max_bytes)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def read_labels(paths: list[Path | None], parse: Callable[[bytes], LabelFile]) -> list[LabelFile]:
    """Each file read and parsed; None is a missing file. A file that cannot be read gets a note."""

    def read(path: Path | None) -> LabelFile:
        try:
            return NO_LABELS if path is None else parse(read_limited(path))
        except DataError as error:
            return NO_LABELS._replace(notes=[Note("label-unreadable", 0, str(error))])

    return in_threads(read, paths)


def read_lines(file: Path, max_bytes: int = MAX_BYTES) -> list[str]:
    """The lines of a text file, without empty ones.

    Raises:
        DataError: if it cannot be read, or is no UTF-8.
    """
    try:
        return [line.strip() for line in read_limited(file, max_bytes).decode("utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: must be UTF-8 text; byte {error.start} is not") from error


def read_sizes(folder: Path, names: list[str], rows: list[int]) -> tuple[np.ndarray, list[Place]]:
    """Upright sizes (rows, 2) from the files' headers, 1 x 1 if a header cannot be read; and the places of those.

    Args:
        folder: that the names are relative to.
        names: of all images; the first has the id 1.
        rows: of the images to read.
    """
    headers = list(zip(rows, read_headers(folder, [names[row] for row in rows]), strict=True))
    broken = [
        Place(f"image {row + 1}: {header}", names[row], row + 1)
        for row, header in headers
        if isinstance(header, DataError)
    ]
    sizes_hw = [(1, 1) if isinstance(header, DataError) else (header.height, header.width) for _, header in headers]
    return np.array(sizes_hw, dtype=np.int32).reshape(-1, 2), broken


def shared_stems(names: list[str]) -> Iterator[Place]:
    """Images whose names differ only in the suffix."""
    same: dict[PurePosixPath, list[str]] = defaultdict(list)
    for name in names:
        same[PurePosixPath(name).with_suffix("")].append(name)
    return (Place(" and ".join(several), several[0]) for several in same.values() if len(several) > 1)


def tell(findings: Findings, rules: Mapping[str, Rule], places: Mapping[str, list[Place]]) -> None:
    """Report places by the rule of their kind, in the order of the rules."""
    for kind, (level, what, remedy) in rules.items():
        here = places.get(kind, [])
        if level == "error":
            findings.error(kind, what, len(here), here, remedy)
        else:
            findings.notice(kind, what, len(here), here, remedy)


def places_of(
    files: list[LabelFile], label_names: list[str], image_names: list[str], mark: str
) -> dict[str, list[Place]]:
    """The place of each note, by kind.

    Args:
        files: one for each image.
        label_names: of the files, as findings show them.
        image_names: of the images; the first has the id 1.
        mark: between the name of a label file and a line or object number, e.g. ":".
    """
    places: dict[str, list[Place]] = defaultdict(list)
    for row, (file, label_name, image_name) in enumerate(zip(files, label_names, image_names, strict=True)):
        for kind, number, text in file.notes:
            where = f"{label_name}{mark}{number}" if number else label_name
            shown = text if kind == "label-unreadable" else f"{where}: {text}" if text else where
            places[kind].append(Place(shown, image_name, row + 1))
    return places


def to_columns(
    files: list[LabelFile],
    label_names: list[str],
    image_names: list[str],
    sizes_hw: np.ndarray,
    boxes_xywh: np.ndarray,
    category_ids: Mapping[int, str],
    mark: str,
    findings: Findings,
) -> CocoColumns:
    """The columns of a split; ids of images and boxes count from 1 in the given order.

    Args:
        files: one for each image, classes as category ids.
        label_names: see ``places_of``.
        image_names: of the images.
        sizes_hw: of the images.
        boxes_xywh: of all boxes, in the order of the files.
        category_ids: each id and its name.
        mark: see ``places_of``.
        findings: gets a function that tells where in the label files a box is.
    """
    counts = [len(file.numbers) for file in files]
    rows = np.repeat(np.arange(len(files)), counts)
    numbers = np.array([number for file in files for number in file.numbers], dtype=np.int64)
    ids = sorted(category_ids)
    findings.locate = lambda annotation_id: f"{label_names[rows[annotation_id - 1]]}{mark}{numbers[annotation_id - 1]}"
    return CocoColumns(
        image_ids=np.arange(1, len(files) + 1),
        sizes_hw=sizes_hw,
        file_names=image_names,
        annotation_ids=np.arange(1, len(rows) + 1),
        box_image_ids=rows + 1,
        box_category_ids=np.array([category for file in files for category in file.classes], dtype=np.int64),
        boxes_xywh=boxes_xywh,
        areas=boxes_xywh[:, 2] * boxes_xywh[:, 3],
        crowd=np.array([crowd for file in files for crowd in file.crowd], dtype=bool),
        category_ids=np.array(ids, dtype=np.int64),
        class_names=tuple(category_ids[number] for number in ids),
    )


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be listed: {error.strerror}") from error
