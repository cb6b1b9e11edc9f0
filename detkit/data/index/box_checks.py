"""What is suspicious in the boxes and classes of a split: boxes in another format, copies, tiny boxes, rare classes.

All of it is arithmetic on whole arrays, so that a million boxes take seconds.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import NamedTuple, TypeVar

import numpy as np

from detkit.data.findings import Findings, Place
from detkit.types import GroundTruth

_Value = TypeVar("_Value", int, str)

TINY_PX = 2  # boxes narrower or lower than this show too little to learn from
NEAR_COPY_IOU = 0.95
RARE = 100  # a class is rare if the most frequent one has more than this many times its boxes

_FEW = 10  # with at least this many boxes a suspicion that holds for nearly all of them is an error
_NEARLY_ALL = 0.95
_NEIGHBOURS = 100  # each box is compared with at most this many others, so the time is never quadratic


class Boxes(NamedTuple):
    """The boxes of a split as its file has them, with the names that a finding uses for them."""

    truth: GroundTruth
    annotation_ids: np.ndarray  # (boxes,)
    file_names: list[str]  # of the images

    def places(self, rows: np.ndarray, texts: Iterable[str] = repeat("")) -> Iterator[Place]:
        """The places of these boxes, each with a text."""
        for row, text in zip(rows, texts, strict=False):
            image_row = self.truth.image_rows[row]
            file, image_id = self.file_names[image_row], int(self.truth.image_ids[image_row])
            yield at(int(self.annotation_ids[row]), text)._replace(file=file, image_id=image_id)


def check_form(boxes: Boxes, findings: Findings) -> None:
    """Find boxes that look normalised, or like two corners instead of a corner and a size.

    A few such boxes are a notice. If nearly all boxes look like this, every label would be wrong, so it is an error:
    normalised numbers taken for pixels put all boxes into one corner, and corners taken for sizes make them too large.
    """
    if not len(boxes.annotation_ids):
        return
    xywh, sizes_wh = boxes.truth.boxes_xywh, boxes.truth.sizes_hw[boxes.truth.image_rows][:, ::-1]
    has_area = (xywh[:, 2:] > 0).all(axis=1)
    shares = np.flatnonzero(has_area & (np.abs(xywh) <= 1.05).all(axis=1) & (sizes_wh >= 32).all(axis=1))
    corners = (xywh >= 0).all(axis=1) & (xywh[:, 2:] > xywh[:, :2]).all(axis=1)
    corners &= (xywh[:, 2:] <= sizes_wh * 1.01 + 1).all(axis=1)
    beyond = np.flatnonzero(corners & (xywh[:, :2] + xywh[:, 2:] > sizes_wh * 1.1).any(axis=1))
    is_corners = len(beyond) >= 0.1 * len(xywh) and corners.mean() >= _NEARLY_ALL
    for kind, rows, is_sure, what, remedy in (
        (
            "box-normalised",
            shares,
            len(shares) >= _NEARLY_ALL * len(xywh),
            f"boxes that look normalised, of {len(xywh):,}: no number is above 1.05, in images of 32 px or more",
            "COCO's are [x, y, width, height] in pixels from the upper left corner: multiply by the image's size",
        ),
        (
            "box-xyxy",
            beyond,
            is_corners,
            (
                f"boxes that look like [x1, y1, x2, y2], of {len(xywh):,}: as [x, y, width, height] they reach over "
                f"the edge by more than a tenth of the image, as corners they lie inside (as do {corners.sum():,})"
            ),
            "COCO's are [x, y, width, height]: subtract x1 and y1 from the last two numbers",
        ),
    ):
        note = findings.error if is_sure and len(xywh) >= _FEW else findings.notice
        note(kind, what, len(rows), boxes.places(rows, (f" has {xywh[row].tolist()}" for row in rows)), remedy)


def note_boxes(boxes: Boxes, findings: Findings) -> None:
    """Note what is unusual in the boxes and classes but does not harm a training by itself."""
    truth, sides = boxes.truth, boxes.truth.boxes_xywh[:, 2:]
    copies, near = _copies(truth)
    tiny = np.flatnonzero((sides > 0).all(axis=1) & (sides < TINY_PX).any(axis=1))
    for kind, what, rows in (
        ("box-copy", "exact copies of a box", copies),
        ("box-near-copy", f"near copies of a box of the same class, IoU above {NEAR_COPY_IOU}", near),
        ("box-tiny", f"boxes narrower or lower than {TINY_PX} px", tiny),
        ("box-crowd", "crowd boxes, neither object nor background in training", np.flatnonzero(truth.crowd)),
    ):
        findings.notice(kind, what, len(rows), boxes.places(rows))
    empty = np.flatnonzero(np.bincount(truth.image_rows, minlength=len(truth.image_ids)) == 0)
    places = (Place(boxes.file_names[row], boxes.file_names[row], int(truth.image_ids[row])) for row in empty)
    findings.notice("image-without-boxes", "images without boxes, used as background", len(empty), places)
    _note_classes(truth, findings)
    zero = np.flatnonzero(boxes.annotation_ids == 0)
    what = "annotation id 0, whose match pycocotools would not count and detkit does"
    findings.notice("annotation-id-0", what, len(zero), boxes.places(zero))


def at(annotation_id: int, text: str = "") -> Place:
    """The place of an annotation."""
    return Place(f"annotation {annotation_id}{text}", annotation_id=int(annotation_id))


def repeated(values: Iterable[_Value]) -> list[_Value]:
    """Values that occur several times, sorted."""
    return sorted(value for value, count in Counter(values).items() if count > 1)


def _note_classes(truth: GroundTruth, findings: Findings) -> None:
    names, counts = truth.class_names, np.bincount(truth.labels, minlength=len(truth.class_names))
    unused = [Place(names[label]) for label in np.flatnonzero(counts == 0)]
    findings.notice("class-without-boxes", "classes without boxes", len(unused), unused)
    most = int(counts.argmax())
    rare = [label for label in np.argsort(counts, kind="stable") if 0 < counts[label] * RARE < counts[most]]
    what = f"classes with less than 1/{RARE} of the boxes of the most frequent one ({names[most]} {counts[most]:,})"
    findings.notice("class-rare", what, len(rare), (Place(f"{names[label]} {counts[label]:,}") for label in rare))
    same = repeated(names)
    findings.notice("class-name-repeated", "class names that several categories have", len(same), map(Place, same))


def _copies(truth: GroundTruth) -> tuple[np.ndarray, np.ndarray]:
    """Rows that equal an earlier row, and other rows that nearly cover another row."""
    keys = np.column_stack((truth.image_rows, truth.labels, truth.boxes_xywh))
    order = np.lexsort(keys.T[[5, 4, 3, 2, 1, 0]])  # by image, class and left edge; of equal rows the first stays first
    ranked = keys[order]
    equal = (ranked[1:] == ranked[:-1]).all(axis=1)
    copies = np.sort(order[1:][equal])
    kept = order[~np.concatenate(([False], equal))] if len(order) else order
    kept = kept[(truth.boxes_xywh[kept, 2:] > 0).all(axis=1) & ~truth.crowd[kept]]
    return copies, _near_copies(kept, keys)


def _near_copies(order: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Of rows sorted by group and left edge, those that nearly cover another row of their group.

    Of such a pair it is the row that comes later in the file. Boxes of such an IoU differ in their left edges by
    less than a twentieth of the first one's width, so only the next rows in that order need to be compared.
    """
    groups, x, y, width, height = keys[order, :2], *keys[order, 2:].T
    near = np.zeros(0, dtype=np.int64)
    first = np.arange(len(order))
    for step in range(1, _NEIGHBOURS + 1):
        first = first[first + step < len(order)]
        second = first + step
        candidates = (groups[first] == groups[second]).all(axis=1)
        candidates &= x[second] - x[first] <= (1 - NEAR_COPY_IOU) * width[first]
        first, second = first[candidates], second[candidates]
        if not len(first):
            break
        overlap = _overlap(x, width, first, second) * _overlap(y, height, first, second)
        union = width[first] * height[first] + width[second] * height[second] - overlap
        covering = overlap > NEAR_COPY_IOU * union
        near = np.union1d(near, np.maximum(order[first], order[second])[covering])
    return near


def _overlap(start: np.ndarray, length: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Shared length of the intervals of two rows."""
    ends = np.minimum(start[first] + length[first], start[second] + length[second])
    return np.maximum(ends - np.maximum(start[first], start[second]), 0)
