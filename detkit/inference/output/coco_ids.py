"""Image and category ids for COCO results: from an annotation file, or from the detector's training data."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from detkit.data.findings import Findings, Place
from detkit.data.formats.coco_json import read_columns
from detkit.inference.input.sources import ImageFile, Source
from detkit.inference.results import ImageDetections

UNKNOWN = -(2**63) - 1  # lower than any id


class CocoIds(NamedTuple):
    """Ids of images and categories."""

    image_ids: dict[str, int] | None  # by the name of the source; None: in the order of the frames, from 1
    category_ids: list[int]  # by label; UNKNOWN where the annotation file has no such category
    class_names: tuple[str, ...]

    @property
    def categories(self) -> list[dict[str, int | str]]:
        """The categories of an annotation file."""
        return [{"id": number, "name": name} for number, name in zip(self.category_ids, self.class_names, strict=True)]

    @property
    def unknown(self) -> list[str]:
        """Class names that the annotation file does not have."""
        pairs = zip(self.category_ids, self.class_names, strict=True)
        return [name for number, name in pairs if number == UNKNOWN]

    def known(self, found: ImageDetections) -> ImageDetections:
        """The detections whose class has an id."""
        has_id = np.array([number != UNKNOWN for number in self.category_ids])
        return found[has_id[found.labels]]


def ids_of_detector(class_names: Sequence[str], category_ids: Sequence[int]) -> CocoIds:
    """Ids without an annotation file: images are numbered from 1, and categories are those of the training data."""
    return CocoIds(None, list(category_ids), tuple(class_names))


def ids_of_annotations(annotations: Path, sources: Sequence[Source], class_names: Sequence[str]) -> CocoIds:
    """The ids of a COCO annotation file for these pictures, by file name, and for these classes, by name.

    Args:
        annotations: path of the file.
        sources: pictures, each with a path that ends with a file name of the annotation file.
        class_names: of the detector.

    Raises:
        DataError: if it is not an annotation file, lacks a picture or all classes, or two pictures have the same id.
    """
    findings = Findings(annotations)
    columns = read_columns(annotations, findings)
    by_name = dict(zip(columns.file_names, columns.image_ids.tolist(), strict=True))
    image_ids, taken = {}, {}
    unlisted, twice = [], []
    for source in sources:
        path = source.path.absolute() if isinstance(source, ImageFile) else PurePosixPath()
        image_id = next((by_name[ending] for ending in _endings(path) if ending in by_name), None)
        if image_id is None:
            unlisted.append(Place(source.name))
        elif image_id in taken:
            twice.append(Place(f"{taken[image_id]} and {source.name} are image {image_id}", image_id=image_id))
        else:
            image_ids[source.name], taken[image_id] = image_id, source.name
    remedy = "leave annotations= out, or name the file that lists them"
    findings.error("source-unlisted", "sources that are not in this file", len(unlisted), unlisted, remedy)
    findings.error("image-twice", "images with two sources", len(twice), twice, "leave one of them out")
    number_of = dict(zip(columns.class_names, columns.category_ids.tolist(), strict=True))
    if not number_of.keys() & set(class_names):
        names = [Place(name) for name in class_names]
        findings.error("no-category", "classes of the detector, none of which is in this file", len(names), names, "")
    findings.raise_errors()
    return CocoIds(image_ids, [number_of.get(name, UNKNOWN) for name in class_names], tuple(class_names))


def _endings(path: PurePosixPath | Path) -> Iterator[str]:
    """The ends of a path, the longest first, because a file may be listed with its folders."""
    for start in range(len(path.parts)):
        yield "/".join(path.parts[start:])
