"""Drawings: boxes with labels on an image, truth beside prediction, sheets of many images.

Images are (H, W, 3) uint8 RGB arrays and never changed in place; boxes are xyxy in the image's own pixels.
"""

import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np

Colour = tuple[int, int, int]

# Far apart from each other in hue or lightness, the most different ones first.
PALETTE: tuple[Colour, ...] = (
    (230, 60, 60),
    (40, 130, 230),
    (250, 190, 40),
    (50, 180, 90),
    (240, 90, 190),
    (30, 200, 210),
    (250, 130, 40),
    (140, 90, 220),
    (170, 210, 50),
    (160, 100, 60),
    (150, 170, 255),
    (0, 120, 120),
    (255, 170, 160),
    (110, 120, 20),
    (170, 20, 100),
    (160, 230, 190),
)
INK, PAPER, GAP = (30, 30, 34), (255, 255, 255), 6
FONT = cv2.FONT_HERSHEY_SIMPLEX
FINE = 4  # text is drawn at this factor and reduced, because OpenCV does not smooth small letters

Rectangle = tuple[int, int, int, int]  # x1, y1, x2, y2, the last two exclusive


def draw_detections(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray | None,
    class_names: Sequence[str],
    min_side_px: int = 0,
) -> np.ndarray:
    """A copy of the image with boxes and labels; lines and letters scale with the image.

    A label stands above its box, or inside or below where there is no room, and never leaves the
    image; the best detections choose their places first.

    Args:
        image: to draw on.
        boxes: (K, 4); parts outside of the image are not seen.
        labels: (K,) class index, which also decides the colour.
        scores: (K,) in [0, 1]; None draws ground truth.
        class_names: the name of each class index.
        min_side_px: an image with a shorter side is enlarged, two, three, .. times, because letters
            that can be read would cover too much of it.

    Raises:
        ValueError: if the image is not (H, W, 3) uint8, the numbers of boxes, labels and scores
            differ, a box is not finite, or a label has no name.
    """
    boxes, labels = np.asarray(boxes, dtype=np.float64).reshape(-1, 4), np.asarray(labels)
    scores = None if scores is None else np.asarray(scores)
    _check(image, boxes, labels, scores, class_names)
    factor = max(1, -(-min_side_px // min(image.shape[:2])))
    picture = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)  # a copy in any case
    boxes = boxes * factor
    height, width = picture.shape[:2]
    line_px = max(1, round(min(height, width) / 280))
    corners = np.clip(np.rint(boxes), -width - height, 2 * (width + height)).astype(int)
    order = np.arange(len(boxes)) if scores is None else np.argsort(-scores, kind="stable")
    for k in reversed(order):  # the best on top
        x1, y1, x2, y2 = corners[k].tolist()
        cv2.rectangle(picture, (x1, y1), (max(x1, x2 - 1), max(y1, y2 - 1)), colour_of(int(labels[k])), line_px)
    taken: list[Rectangle] = []
    for k in order:
        name = _printable(class_names[int(labels[k])]) or f"class {labels[k]}"
        text = _text_mask(name if scores is None else f"{name} {scores[k]:.2f}", _letter_px(picture))
        place = _place(text.shape, corners[k].tolist(), (height, width), taken)
        taken.append(place)
        _stamp(picture, text, place, colour_of(int(labels[k])))
    return picture


def side_by_side(truth: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Two pictures of one image next to each other (a wide one: below), with a line that says which is which.

    Raises:
        ValueError: if their sizes differ.
    """
    if truth.shape != predictions.shape:
        raise ValueError(f"both pictures must have one size; got {truth.shape} and {predictions.shape}")
    height, width = truth.shape[:2]
    return grid(
        [_captioned(truth, "truth"), _captioned(predictions, "prediction")], columns=1 if width > 2 * height else 2
    )


def grid(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Images in rows on white paper, each in the middle of a cell as large as the largest image.

    Raises:
        ValueError: if there are no images, or columns is less than 1.
    """
    if not images or columns < 1:
        raise ValueError(f"a grid needs images and columns; got {len(images)} images and columns={columns}")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    cell_h, cell_w = (max(image.shape[axis] for image in images) for axis in (0, 1))
    sheet = np.full((rows * (cell_h + GAP) - GAP, columns * (cell_w + GAP) - GAP, 3), PAPER, dtype=np.uint8)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        top = row * (cell_h + GAP) + (cell_h - image.shape[0]) // 2
        left = column * (cell_w + GAP) + (cell_w - image.shape[1]) // 2
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


def colour_of(label: int) -> Colour:
    """The colour of a class, the same in every picture."""
    return PALETTE[label % len(PALETTE)]


def _check(
    image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray | None, class_names: Sequence[str]
) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be (H, W, 3) uint8; got {image.shape} {image.dtype}")
    if len(labels) != len(boxes) or (scores is not None and len(scores) != len(boxes)):
        counts = f"{len(labels)} labels" + ("" if scores is None else f" and {len(scores)} scores")
        raise ValueError(f"every box needs its label and score; got {len(boxes)} boxes, {counts}")
    if not np.isfinite(boxes).all():
        raise ValueError(f"boxes must be finite; got {boxes[~np.isfinite(boxes).all(axis=1)][0].tolist()}")
    nameless = [label for label in labels.tolist() if not 0 <= label < len(class_names)]
    if nameless:
        raise ValueError(f"labels must lie in [0, {len(class_names)}), one for each class name; got {nameless[0]}")


def _letter_px(image: np.ndarray) -> int:
    """Height of a capital letter."""
    return max(7, round(min(image.shape[:2]) / 70))


def _printable(name: str) -> str:
    """The letters that OpenCV can draw: ``Gänse`` becomes ``Ganse``."""
    return unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()


def _text_mask(text: str, letter_px: int) -> np.ndarray:
    """(h, w) how much ink is on each pixel, 0 to 255, with a margin around the text."""
    large_px = letter_px * FINE
    scale = cv2.getFontScaleFromHeight(FONT, large_px)
    thickness = max(1, round(large_px / 7))
    (width, _), _ = cv2.getTextSize(text, FONT, scale, thickness)
    margin = round(large_px * 0.45)
    size_hw = (round(large_px * 1.15) + 2 * margin, width + 2 * margin)  # the same height with and without descenders
    large = np.zeros(tuple(-(-side // FINE) * FINE for side in size_hw), dtype=np.uint8)
    cv2.putText(large, text, (margin, margin + large_px), FONT, scale, 255, thickness, cv2.LINE_AA)
    return cv2.resize(large, None, fx=1 / FINE, fy=1 / FINE, interpolation=cv2.INTER_AREA)


def _place(
    text_hw: tuple[int, ...], corners: list[int], image_hw: tuple[int, int], taken: list[Rectangle]
) -> Rectangle:
    """Above the box, in it at the top, above at the right, below, in it at the bottom.

    The first of those where the label covers least of other labels.
    """
    (text_h, text_w), (height, width) = text_hw, image_hw
    x1, y1, x2, y2 = corners
    corners_of_text = ((x1, y1 - text_h), (x1, y1), (x2 - text_w, y1 - text_h), (x1, y2), (x1, y2 - text_h))
    places = []
    for wanted_left, wanted_top in corners_of_text:
        left, top = max(0, min(wanted_left, width - text_w)), max(0, min(wanted_top, height - text_h))
        places.append((left, top, left + text_w, top + text_h))
    return min(places, key=lambda place: sum(_overlap(place, other) for other in taken))


def _overlap(a: Rectangle, b: Rectangle) -> int:
    """Number of pixels in both rectangles."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _stamp(picture: np.ndarray, text: np.ndarray, place: Rectangle, colour: Colour) -> None:
    """Draw text on a background of this colour, in black or white by contrast; cut off at the image's edge."""
    x1, y1, x2, y2 = place
    spot = picture[y1:y2, x1:x2]
    ink = np.where(np.dot(colour, (0.299, 0.587, 0.114)) > 140, INK, PAPER)
    opacity = text[: spot.shape[0], : spot.shape[1], None] / 255
    spot[:] = np.rint(opacity * ink + (1 - opacity) * colour)


def _captioned(image: np.ndarray, caption: str) -> np.ndarray:
    text = _text_mask(caption, _letter_px(image))[:, : image.shape[1]]
    strip = np.full((len(text), image.shape[1], 3), PAPER, dtype=np.uint8)
    _stamp(strip, text, (0, 0, text.shape[1], len(text)), PAPER)
    return np.concatenate((strip, image))
