"""How each type of target is drawn, alone and next to the result of the model."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from detkit.ops.drawing import draw_detections, side_by_side
from detkit.types import Detections, ImageLabel, RankedClasses, Target

MIN_SCORE = 0.3  # boxes with lower scores are not drawn
CLASS_SIDE_PX, FRAME_PX = 160, 5  # smaller images are enlarged, so that the class name is readable
RIGHT, WRONG = (50, 180, 90), (230, 60, 60)


class Drawing(NamedTuple):
    """Functions that draw on copies of (H, W, 3) uint8 RGB images."""

    truth: Callable[[np.ndarray, Any, Sequence[str]], np.ndarray]  # image, target, class names
    with_result: Callable[[np.ndarray, Any, Any, Sequence[str]], np.ndarray]  # image, target, result, class names
    images: int  # per sheet
    columns: int


def drawing_of(target: object) -> Drawing:
    """The drawing for targets of this type."""
    return DRAWINGS[type(target)]


def _boxes(image: np.ndarray, target: Target, class_names: Sequence[str]) -> np.ndarray:
    return draw_detections(image, target.boxes.cpu().numpy(), target.labels.cpu().numpy(), None, class_names)


def _boxes_with_result(image: np.ndarray, target: Target, found: Detections, class_names: Sequence[str]) -> np.ndarray:
    sure = found.scores >= MIN_SCORE
    boxes, scores, labels = (values[sure].float().cpu().numpy() for values in found)
    drawn = draw_detections(image, boxes, labels.astype(int), scores, class_names)
    return side_by_side(_boxes(image, target, class_names), drawn)


def _class(image: np.ndarray, target: ImageLabel, class_names: Sequence[str]) -> np.ndarray:
    return _named(image, target.label[None], None, class_names)


def _class_with_result(
    image: np.ndarray, target: ImageLabel, found: RankedClasses, class_names: Sequence[str]
) -> np.ndarray:
    """The class with the highest score, in a green frame if it is right, else in a red one."""
    best = _named(image, found.labels[:1], found.scores[:1], class_names)
    pair = side_by_side(_class(image, target, class_names), best)
    height, width = pair.shape[:2]
    framed = np.full((height + 2 * FRAME_PX, width + 2 * FRAME_PX, 3), WRONG, dtype=np.uint8)
    if found.labels[:1].tolist() == [int(target.label)]:
        framed[:] = RIGHT
    framed[FRAME_PX:-FRAME_PX, FRAME_PX:-FRAME_PX] = pair
    return framed


def _named(image: np.ndarray, labels: Tensor, scores: Tensor | None, class_names: Sequence[str]) -> np.ndarray:
    """The image with its class, if there is one, drawn as a box around the whole image."""
    height, width = image.shape[:2]
    boxes = np.array([[0, 0, width, height]] * len(labels))
    shown = None if scores is None else scores.float().cpu().numpy()
    return draw_detections(image, boxes, labels.cpu().numpy(), shown, class_names, min_side_px=CLASS_SIDE_PX)


DRAWINGS: dict[type, Drawing] = {
    Target: Drawing(_boxes, _boxes_with_result, images=8, columns=2),
    ImageLabel: Drawing(_class, _class_with_result, images=24, columns=4),
}
