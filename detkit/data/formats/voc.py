"""Pascal VOC: an XML file for each image, with the corners of each box in pixels.

VOC counts pixels from 1, and both corners belong to the box: a box of the whole image is (1, 1, width, height). In
continuous coordinates, where pixel 1 lies between 0 and 1, this is (0, 0, width, height), so 1 is subtracted from
xmin and ymin. Many tools write continuous coordinates into the same XML. If a box of a set begins at 0, which no
pixel of VOC does, the set comes from such a tool, and nothing is subtracted in any of its splits.

Difficult objects become crowd boxes, neither object nor background: VOC's own evaluation counts them neither as
missed nor as false detections. COCO's rule for crowds differs from VOC's in one point: a detection is compared by
the share of its own area inside the crowd box, not by IoU.

Source: Everingham and Winn, The PASCAL VOC2012 Development Kit, sections 3.4, 4.4 and 8.
"""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from detkit.data.findings import Findings, Place
from detkit.data.formats.coco_json import CocoColumns
from detkit.data.formats.label_files import (
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
from detkit.errors import DataError

SIBLINGS = ("train", "valid", "val", "test")  # folders with the XML files of one split each
_TOO_LARGE = 1e9  # px
_MARK = " object "
_KEPT = frozenset(("name", "bndbox", "difficult"))  # tags of an object that are read
_UNSAID = frozenset(("", "0", "false", "no", "unspecified", "none"))  # values that stand for "not set"
_RULES = {
    **COMMON_RULES,
    "xml-invalid": Rule("error", "files that are no XML of VOC", "write them again, or copy them again"),
    "object-without-name": Rule("error", "objects without a name", "name their class, or remove them"),
    "object-without-box": Rule(
        "error", "objects whose bndbox is not xmin, ymin, xmax and ymax in finite numbers", "correct or remove them"
    ),
    "box-inverted": Rule(
        "error", "boxes that end before they begin", "exchange their corners, or correct or remove them"
    ),
    "size-wrong": Rule("error", "files whose size is not width and height in whole numbers", "correct or remove it"),
    "listed-missing": Rule("error", "listed images that are not there", "put them there, or remove their lines"),
    "size-missing": Rule("notice", "files without a size, taken from their images"),
    "object-difficult": Rule("notice", "difficult objects, neither object nor background, as in VOC's evaluation"),
    "counted-from-0": Rule(
        "notice", "boxes that begin at 0, so that the set counts edges from 0, not pixels from 1 as VOC does"
    ),
    "lost-attribute": Rule("notice", "what objects have besides a name, a box and difficult, which is not read"),
}


class VocSet(NamedTuple):
    """The images of a split, their XML files, and those of the other splits, whose classes count too."""

    image_names: list[str]  # relative to the image folder
    label_names: list[str]  # of each image
    labels: list[Path | None]  # of each image, if it has one
    others: list[Path | None]
    orphans: list[str]  # XML files without an image
    absent: list[str]  # listed images that do not exist


def read_voc(annotations: Path, images: Path, findings: Findings) -> CocoColumns:
    """A split in VOC's format. Classes are all names of the set, sorted; images and boxes are numbered from 1.

    Args:
        annotations: the folder of XML files, or the list of a split, ``ImageSets/Main/train.txt``.
        images: the folder that the names of images are relative to.
        findings: takes errors and notices about files and objects.

    Raises:
        DataError: one for all errors of files and objects.
    """
    found = _find(annotations, images)
    if found.image_names and not any(found.labels):
        number, first = len(found.labels), found.label_names[0]
        raise DataError(f"none of the {number:,} images in {images} has an XML file; {first} is missing, for example")
    files, others = read_labels(found.labels, parse_xml), read_labels(found.others, parse_xml)
    unsized = [row for row, file in enumerate(files) if file.size_hw is None]
    sizes_hw = np.array([file.size_hw or (1, 1) for file in files], dtype=np.int32).reshape(-1, 2)
    sizes_hw[unsized], broken = read_sizes(images, found.image_names, unsized)
    at_0 = list(_places_at_0(files, found.label_names)) + list(_places_at_0(others, list(map(str, found.others))))
    rows = [row for row, path in enumerate(found.labels) if path is None]
    places = {
        **places_of(files, found.label_names, found.image_names, _MARK),
        "image-unreadable": broken,
        "shared-label": list(shared_stems(found.image_names)),
        "label-without-image": list(map(Place, found.orphans)),
        "listed-missing": list(map(Place, found.absent)),
        "no-label-file": [Place(found.image_names[row], found.image_names[row], row + 1) for row in rows],
        "counted-from-0": at_0,
    }
    places["lost-attribute"] = _by_attribute(places.pop("lost-attribute", []))
    tell(findings, _RULES, places)
    findings.raise_errors()
    names = sorted({name for file in files + others for name in file.classes})
    ids = {name: number for number, name in enumerate(names, start=1)}
    files = [file._replace(classes=[ids[name] for name in file.classes]) for file in files]
    boxes_xywh = _to_edges(files, from_0=bool(at_0))
    id_names = {number: name for name, number in ids.items()}
    return to_columns(files, found.label_names, found.image_names, sizes_hw, boxes_xywh, id_names, _MARK, findings)


def is_voc_list(annotations: Path) -> bool:
    """Whether a path is the list of a split in a set of VOC: ``ImageSets/Main/train.txt``."""
    return annotations.suffix == ".txt" and annotations.parts[-3:-1] == ("ImageSets", "Main")


def parse_xml(content: bytes) -> LabelFile:
    """The objects of an XML file: classes as names, boxes as the corners in the file.

    Entities and document types are refused, because a small file can become gigabytes by them.
    """
    labels = LabelFile([], [], [], [], [])
    try:
        root = ET.fromstring(content, ET.XMLParser(target=_Plain()))
    except (ET.ParseError, ValueError, LookupError) as error:  # no XML, or an unknown encoding
        labels.notes.append(Note("xml-invalid", 0, str(error)))
        return labels
    if root.tag != "annotation":
        labels.notes.append(Note("xml-invalid", 0, f"it holds {root.tag!r:.80}, not 'annotation'"))
        return labels
    for number, item in enumerate(root.iterfind("object"), start=1):
        labels.notes.extend(_take_object(item, number, labels))
    size_hw, notes = _size(root.find("size"))
    labels.notes.extend(notes)
    return labels._replace(size_hw=size_hw)


class _Plain(ET.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:  # noqa: ARG002 - called by position
        raise ValueError(f"a document type ({name!r:.80}) is refused; remove <!DOCTYPE ...>")


def _take_object(item: ET.Element, number: int, labels: LabelFile) -> Iterator[Note]:
    """Add an object's box to the labels; yields notes about what is wrong or not read."""
    name, box = (item.findtext("name") or "").strip(), _corners(item.find("bndbox"))
    if not name:
        yield Note("object-without-name", number)
    elif box is None:
        texts = [f"{child.tag} {(child.text or '').strip()}" for child in item.iterfind("bndbox/*")]
        yield Note("object-without-box", number, f"{', '.join(texts) or 'none'!s:.80}")
    elif box[2] < box[0] or box[3] < box[1]:
        yield Note("box-inverted", number, f"{box}")
    else:
        difficult = (item.findtext("difficult") or "").strip().lower() not in _UNSAID
        labels.numbers.append(number)
        labels.classes.append(name)
        labels.boxes.append(box)
        labels.crowd.append(difficult)
        if difficult:
            yield Note("object-difficult", number)
        for child in item:
            if child.tag not in _KEPT and (len(child) or (child.text or "").strip().lower() not in _UNSAID):
                yield Note("lost-attribute", number, child.tag)


def _corners(box: ET.Element | None) -> tuple[float, float, float, float] | None:
    if box is None:
        return None
    values = [_number(box.findtext(key)) for key in ("xmin", "ymin", "xmax", "ymax")]
    left, top, right, bottom = values
    return None if left is None or top is None or right is None or bottom is None else (left, top, right, bottom)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    plain = str(text).isascii() and "_" not in str(text)  # float() accepts 1_0 and digits of other scripts
    return value if abs(value) < _TOO_LARGE and plain else None


def _size(size: ET.Element | None) -> tuple[tuple[int, int] | None, list[Note]]:
    """The size in <size>, or a note. Some tools write 0, or leave it out."""
    texts = [None if size is None else size.findtext(key) for key in ("height", "width")]
    if all((text or "").strip() in ("", "0") for text in texts):
        return None, [Note("size-missing")]
    height, width = map(_number, texts)
    if height is None or width is None or not (height.is_integer() and width.is_integer() and min(height, width) >= 1):
        return None, [Note("size-wrong", 0, f"height {texts[0]!r:.40}, width {texts[1]!r:.40}")]
    return (int(height), int(width)), []


def _to_edges(files: list[LabelFile], *, from_0: bool) -> np.ndarray:
    """Boxes (N, 4) xywh of corners that are pixels counted from 1, or continuous coordinates from 0."""
    boxes = np.array([box for file in files for box in file.boxes], dtype=np.float64).reshape(-1, 4)
    if not from_0:
        boxes[:, :2] -= 1
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


def _places_at_0(files: list[LabelFile], names: list[str]) -> Iterator[Place]:
    for file, name in zip(files, names, strict=True):
        for number, (left, top, _, _) in zip(file.numbers, file.boxes, strict=True):
            if 0 <= left < 1 or 0 <= top < 1:
                yield Place(f"{name}{_MARK}{number}")


def _by_attribute(places: list[Place]) -> list[Place]:
    """One place for each attribute, with the number of its occurrences."""
    counts = Counter(place.text.rpartition(": ")[2] for place in places)
    return [Place(f"{attribute} {count:,} times") for attribute, count in sorted(counts.items())]


def _find(annotations: Path, images: Path) -> VocSet:
    is_list = is_voc_list(annotations)
    label_root = annotations.parents[2] / "Annotations" if is_list else annotations
    xml_names = list_files(label_root, (".xml",))
    image_names, absent = list_files(images, IMAGE_SUFFIXES), []
    if is_list:
        listed = set(read_lines(annotations))
        absent = sorted(listed - {_stem(name) for name in image_names})
        image_names = [name for name in image_names if _stem(name) in listed]
    label_names = [f"{_stem(name)}.xml" for name in image_names]
    own, present = set(label_names), set(xml_names)
    others = [label_root / name for name in xml_names if name not in own]
    orphans = [] if is_list else [name for name in xml_names if name not in own]
    for sibling in SIBLINGS if label_root.name in SIBLINGS else ():
        folder = label_root.with_name(sibling)
        if folder != label_root and folder.is_dir():
            others += [folder / name for name in list_files(folder, (".xml",))]
    labels = [label_root / name if name in present else None for name in label_names]
    return VocSet(image_names, label_names, labels, [*others], orphans, absent)


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()
