"""Changes of an image and its boxes: affine placement, colour, flips, and a user's own transforms.

A matrix is 2 x 3, float64, and takes continuous coordinates (a pixel is the square [x, x + 1)) of a
source to those of a canvas. Every function that draws returns the matrix that it used, or receives it, so
boxes follow the pixels exactly.
"""

import math
import os
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from detkit.data.images.resize import resize_antialiased
from detkit.errors import DataError

REDUCTIONS = (8, 4, 2)  # sizes at which a JPEG can be decoded, as 1 / n, smallest first

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise its import asks a server for a newer version


class Sample(NamedTuple):
    """An image during augmentation. Boxes are xyxy in its pixels and may lie partly outside until ``keep_visible``."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    boxes: np.ndarray  # (N, 4) float32
    labels: np.ndarray  # (N,) int64
    crowd: np.ndarray  # (N,) bool: regions that become ignored boxes


def affine_matrix(
    scale_xy: tuple[float, float],
    shift_xy: tuple[float, float] = (0, 0),
    degrees: float = 0,
    shear_xy: tuple[float, float] = (0, 0),
) -> np.ndarray:
    """Scale, then rotate, then shear, then shift.

    Args:
        scale_xy: factors.
        shift_xy: pixels.
        degrees: of the rotation, clockwise on the screen.
        shear_xy: degrees by which vertical lines are sheared along x, and horizontal ones along y.
    """
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    lean_x, lean_y = (math.tan(math.radians(lean)) for lean in shear_xy)
    scale_x, scale_y = scale_xy
    return np.array(
        [
            [scale_x * (cos + lean_x * sin), scale_y * (lean_x * cos - sin), shift_xy[0]],
            [scale_x * (lean_y * cos + sin), scale_y * (cos - lean_y * sin), shift_xy[1]],
        ],
        np.float64,
    )


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The matrix that does ``inner`` first."""
    composed = outer[:, :2] @ inner
    composed[:, 2] += outer[:, 2]
    return composed


def move_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(N, 4) xyxy boxes through a matrix; of a rotated box the upright one around its corners, float32."""
    linear = matrix[:, :2].T
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 @ linear + matrix[:, 2]
    reach = (boxes[:, 2:] - boxes[:, :2]) / 2 @ np.abs(linear)
    return np.concatenate([centres - reach, centres + reach], axis=1).astype(np.float32)


def reduction_for(matrix: np.ndarray) -> int:
    """How much smaller an image may be decoded: never below the size at which the matrix draws it.

    Half, a quarter or an eighth of the size is faster to decode, and smoother than taking every
    second pixel of the whole.
    """
    scale = float(np.hypot(matrix[0, :2], matrix[1, :2]).max())
    return next((reduce for reduce in REDUCTIONS if scale * reduce <= 1), 1)


def is_visible(matrix: np.ndarray, source_hw: tuple[int, int], canvas_hw: tuple[int, int]) -> bool:
    """Whether any part of a source may reach the canvas; other sources need not be decoded."""
    height, width = source_hw
    x1, y1, x2, y2 = move_boxes(np.array([[0.0, 0.0, width, height]]), matrix)[0].tolist()
    return x1 < canvas_hw[1] and y1 < canvas_hw[0] and x2 > 0 and y2 > 0


def paste(canvas: np.ndarray, source: np.ndarray, matrix: np.ndarray, *, antialias: bool = False) -> np.ndarray:
    """Draw the visible part of a source onto the canvas, in place.

    An upright matrix is rounded so that whole source pixels fill whole canvas pixels: then it is a
    plain resize, three times as fast as a warp. The rounding moves nothing by more than a pixel of
    the canvas or of the source, whichever is larger.

    Args:
        canvas: (H, W, 3) uint8.
        source: (h, w, 3) uint8.
        matrix: from the source to the canvas.
        antialias: an upright matrix shrinks as ``squash`` does, not as ``letterbox``.

    Returns:
        The matrix as drawn.
    """
    if matrix[0, 1] == 0 and matrix[1, 0] == 0:
        return _paste_upright(canvas, source, matrix, antialias)
    return _paste_turned(canvas, source, matrix)


class _Span(NamedTuple):
    """Along one axis: source pixels [source, source_end) fill canvas pixels [canvas, canvas_end)."""

    source: int
    source_end: int
    canvas: int
    canvas_end: int

    @classmethod
    def of(cls, scale: float, shift: float, source_length: int, canvas_length: int) -> "_Span":
        start = round(shift)
        end = max(start + 1, round(shift + scale * source_length))
        first, last = min(max(start, 0), canvas_length), max(min(end, canvas_length), 0)
        per_pixel = source_length / (end - start)
        source = min(int((first - start) * per_pixel), source_length - 1)
        source_end = max(math.ceil((last - start) * per_pixel - 1e-6), source + 1)
        return cls(source, source_end, first, last)

    @property
    def scale(self) -> float:
        return (self.canvas_end - self.canvas) / (self.source_end - self.source)

    @property
    def shift(self) -> float:
        return self.canvas - self.source * self.scale


def _paste_upright(canvas: np.ndarray, source: np.ndarray, matrix: np.ndarray, antialias: bool) -> np.ndarray:
    x = _Span.of(matrix[0, 0], matrix[0, 2], source.shape[1], canvas.shape[1])
    y = _Span.of(matrix[1, 1], matrix[1, 2], source.shape[0], canvas.shape[0])
    if x.canvas >= x.canvas_end or y.canvas >= y.canvas_end:
        return matrix
    part = source[y.source : y.source_end, x.source : x.source_end]
    target = canvas[y.canvas : y.canvas_end, x.canvas : x.canvas_end]
    if antialias:
        target[...] = resize_antialiased(part, target.shape[:2])
    else:
        cv2.resize(part, (target.shape[1], target.shape[0]), dst=target, interpolation=cv2.INTER_LINEAR)
    return np.array([[x.scale, 0, x.shift], [0, y.scale, y.shift]])


def _paste_turned(canvas: np.ndarray, source: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    height, width = source.shape[:2]
    x1, y1, x2, y2 = move_boxes(np.array([[0.0, 0.0, width, height]]), matrix)[0].tolist()
    left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
    right, bottom = min(canvas.shape[1], math.ceil(x2)), min(canvas.shape[0], math.ceil(y2))
    if left >= right or top >= bottom:
        return matrix
    centres = matrix.copy()  # cv2 counts from the centre of the first pixel, and here from the part's corner
    centres[:, 2] += matrix[:, :2] @ (0.5, 0.5) - (0.5 + left, 0.5 + top)
    cv2.warpAffine(
        source,
        centres,
        (right - left, bottom - top),
        dst=canvas[top:bottom, left:right],
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_TRANSPARENT,
    )
    return matrix


def keep_visible(sample: Sample, min_box_px: float, min_visible_frac: float) -> Sample:
    """Boxes clipped to the image, without those of which too little is left.

    Args:
        sample: its boxes may reach over the edge.
        min_box_px: a box narrower or lower than this after clipping is dropped.
        min_visible_frac: a box of whose area less than this lies in the image is dropped.
            A crowd region stays as long as anything of it is in the image.
    """
    height, width = sample.image.shape[:2]
    boxes = np.clip(sample.boxes, 0, np.array([width, height, width, height], np.float32))
    sides = boxes[:, 2:] - boxes[:, :2]
    whole = (sample.boxes[:, 2:] - sample.boxes[:, :2]).prod(axis=1)
    keep = (sides >= min_box_px).all(axis=1) & (sides.prod(axis=1) >= min_visible_frac * whole)
    keep |= sample.crowd & (sides > 0).all(axis=1)
    return Sample(sample.image, boxes[keep], sample.labels[keep], sample.crowd[keep])


def flip(sample: Sample, horizontal: bool, vertical: bool) -> Sample:
    """The sample mirrored left to right, top to bottom, or both."""
    if not (horizontal or vertical):
        return sample
    height, width = sample.image.shape[:2]
    mirror = affine_matrix(
        scale_xy=(-1 if horizontal else 1, -1 if vertical else 1),
        shift_xy=(width if horizontal else 0, height if vertical else 0),
    )
    image = cv2.flip(sample.image, -1 if horizontal and vertical else int(horizontal))
    return sample._replace(image=image, boxes=move_boxes(sample.boxes, mirror))


def change_colour(image: np.ndarray, hue_degrees: float, saturation: float, brightness: float) -> np.ndarray:
    """Image with its hue turned and its saturation and brightness multiplied.

    Hue, saturation and darkening are together one linear map of RGB, a tenth of the way to HSV and
    back. Brightening follows a curve that leaves white white: a plain factor would burn out bright
    images, colours and all.

    Args:
        image: (H, W, 3) uint8 RGB.
        hue_degrees: turn of the hue about the grey axis; grey stays as it is.
        saturation: factor on the distance from the grey of the same luma.
        brightness: factor on everything; above 1 on what is dark, and less the brighter it is.

    Source: W3C, Filter Effects Module Level 1, feColorMatrix, hueRotate and saturate.
        https://www.w3.org/TR/filter-effects-1/#feColorMatrixElement
    """
    luma = np.array([0.213, 0.715, 0.072])
    quarter_turn = np.array([[-0.213, -0.715, 0.928], [0.143, 0.140, -0.283], [-0.787, 0.715, 0.072]])
    angle = math.radians(hue_degrees)
    colour = math.cos(angle) * (np.eye(3) - luma) + math.sin(angle) * quarter_turn
    image = cv2.transform(image, min(brightness, 1) * (luma + saturation * colour))
    if brightness <= 1:
        return image
    darkness = np.linspace(1, 0, 256)
    return cv2.LUT(image, np.rint(255 * (1 - darkness**brightness)).astype(np.uint8))


class UserTransforms:
    """A user's albumentations transforms, drawn from the sample's own generator.

    Args:
        transforms: of albumentations, in order. Together they must keep the size of the image.

    Raises:
        ValueError: by albumentations, if it does not know an argument of a transform.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        import albumentations as A  # takes seconds, so only where it is used

        # Only the row goes through as label: albumentations turns label fields into float32.
        boxes = A.BboxParams(format="pascal_voc", label_fields=["rows"], clip=True, filter_invalid_bboxes=True)
        self._compose = A.Compose(list(transforms), bbox_params=boxes, strict=True)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample transformed, crowd regions too.

        Raises:
            DataError: if the image comes back with another size or type.
        """
        self._compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        result = self._compose(image=sample.image, bboxes=sample.boxes, rows=np.arange(len(sample.boxes)))
        image = result["image"]
        if image.shape != sample.image.shape or image.dtype != np.uint8:
            raise DataError(
                f"data.augmentation.transforms made {image.dtype} {image.shape} of uint8 {sample.image.shape}; they "
                "must keep size and type: data.image_hw sets the size, and the network's input is scaled later"
            )
        rows = np.asarray(result["rows"], np.int64)
        boxes = np.asarray(result["bboxes"], np.float32).reshape(-1, 4)
        return Sample(np.ascontiguousarray(image), boxes, sample.labels[rows], sample.crowd[rows])
