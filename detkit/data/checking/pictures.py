"""Pictures for the page of the data check: small copies of the images of a finding, with its boxes."""

from typing import NamedTuple

import cv2
import numpy as np

from detkit.data.checking.check import CheckedSplit
from detkit.data.findings import Finding, Place
from detkit.data.images.decode import BACKGROUND, decode_image
from detkit.data.index.coco_index import CocoIndex
from detkit.errors import DataError
from detkit.ops.drawing import colour_of, draw_detections
from detkit.reports.figures import jpeg_uri

PER_FINDING = 4
_LONG_SIDE_PX, _SHORT_SIDE_PX = 480, 160  # limits of a picture; an image with a smaller short side is enlarged
_REDUCTIONS = (8, 4, 2, 1)
_MARGIN_FRAC = 0.25  # largest margin around a picture whose boxes reach over its edge, as a share of its side
_OTHER_BOXES = (200, 200, 200)


class Picture(NamedTuple):
    """One image of a finding."""

    text: str
    uri: str  # data URI; empty if there is no picture
    why_not: str = ""


class _FoundImage(NamedTuple):
    """The places of a finding in one image."""

    places: list[Place]
    boxes: list[int]  # rows of the ground truth; empty: the finding is about the whole image


class PictureMaker:
    """Makes pictures up to a number of bytes, so that a browser can open the page quickly.

    Args:
        max_bytes: of all data URIs together.
    """

    def __init__(self, max_bytes: int) -> None:
        self.bytes_left = max_bytes

    def pictures_of(self, finding: Finding, split: CheckedSplit) -> list[Picture]:
        """Pictures of the first images of the finding; empty if no picture can be made."""
        if self.bytes_left <= 0:
            return []
        named = _by_file(finding) if split.index is None else _by_row(finding, split.index)
        pictures = [self._picture(key, image, split) for key, image in named.items()]
        return pictures if any(picture.uri for picture in pictures) else []

    def _picture(self, key: str | int, named: _FoundImage, split: CheckedSplit) -> Picture:
        name = key if split.index is None else split.index.path(int(key)).relative_to(split.index.folder)
        texts = [place.text for place in named.places[:3] if place.text != str(name)]
        more = [f"and {len(named.places) - 3} more"] if len(named.places) > 3 else []
        text = "; ".join([str(name), *texts, *more])
        try:
            image = _draw_file(str(key), split) if split.index is None else _draw_row(int(key), named, split.index)
        except DataError as error:
            return Picture(text, "", str(error))
        uri = jpeg_uri(image)
        self.bytes_left -= len(uri)
        return Picture(text, uri)


def _by_file(finding: Finding) -> dict[str, _FoundImage]:
    images: dict[str, _FoundImage] = {}
    for place in finding.places:
        if place.file is not None and (place.file in images or len(images) < PER_FINDING):
            images.setdefault(place.file, _FoundImage([], [])).places.append(place)
    return images


def _by_row(finding: Finding, index: CocoIndex) -> dict[int, _FoundImage]:
    images: dict[int, _FoundImage] = {}
    for place in finding.places[: 50 * PER_FINDING]:
        row, box = _find(place, index)
        if row is not None and (row in images or len(images) < PER_FINDING):
            named = images.setdefault(row, _FoundImage([], []))
            named.places.append(place)
            named.boxes.extend([] if box is None else [box])
    return images


def _find(place: Place, index: CocoIndex) -> tuple[int | None, int | None]:
    """Rows of the image and of the box in the ground truth."""
    if place.annotation_id is not None and len(boxes := np.flatnonzero(index.annotation_ids == place.annotation_id)):
        return int(index.ground_truth().image_rows[boxes[0]]), int(boxes[0])
    rows = [] if place.image_id is None else np.flatnonzero(index.image_ids == place.image_id).tolist()
    return (rows[0] if rows else None), None


def _draw_file(name: str, split: CheckedSplit) -> np.ndarray:
    """An image of an unusable split, without boxes, which are unknown."""
    path = split.images / name.replace("\0", "")
    if not path.resolve().is_relative_to(split.images.resolve()):
        raise DataError(f"{name!r} is not in the image folder")
    return _fit(decode_image(path))


def _draw_row(row: int, named: _FoundImage, index: CocoIndex) -> np.ndarray:
    """The image with the boxes of the finding and their classes, and thin lines for other boxes; all if it has none."""
    long_side = int(index.sizes_hw[row].max())
    reduce = next(factor for factor in _REDUCTIONS if factor == 1 or long_side >= factor * _LONG_SIDE_PX)
    image = _fit(decode_image(index.path(row), reduce))
    truth = index.ground_truth()
    here = np.flatnonzero(truth.image_rows == row)
    marked = np.isin(here, named.boxes) if named.boxes else np.ones(len(here), dtype=bool)
    boxes = truth.boxes_xywh[here]
    boxes[:, 2:] += boxes[:, :2]
    boxes *= max(image.shape[:2]) / long_side
    image, boxes = _add_margin(image, boxes, marked)
    corners = np.clip(np.rint(boxes), -2 * _LONG_SIDE_PX, 2 * _LONG_SIDE_PX).astype(int).tolist()
    for (x1, y1, x2, y2), is_marked, label in zip(corners, marked, truth.labels[here].tolist(), strict=True):
        bold = is_marked and bool(named.boxes)
        cv2.rectangle(image, (x1, y1), (x2, y2), colour_of(label) if bold else _OTHER_BOXES, 3 if bold else 1)
    return draw_detections(image, boxes[marked], truth.labels[here[marked]], None, truth.class_names, _SHORT_SIDE_PX)


def _fit(image: np.ndarray) -> np.ndarray:
    """A copy whose longer side has at most ``_LONG_SIDE_PX``."""
    factor = min(1.0, _LONG_SIDE_PX / max(image.shape[:2]))
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _add_margin(image: np.ndarray, boxes: np.ndarray, marked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture with a margin where a marked box reaches over its edge, and the boxes moved with it."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (boxes[marked].T if marked.any() else np.zeros((4, 1))).astype(float)
    beyond = np.array([-y1.min(), y2.max() - height, -x1.min(), x2.max() - width]) + 2
    most = _MARGIN_FRAC * np.array([height, height, width, width])
    top, bottom, left, right = np.where(beyond > 3, np.clip(beyond, 0, most), 0).astype(int).tolist()
    wider = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(BACKGROUND,) * 3)
    return wider, boxes + np.array([left, top, left, top])
