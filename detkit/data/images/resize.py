"""An image resized to the network input: letterboxed or squashed.

``letterbox`` keeps the aspect ratio and fills the rest with grey, as YOLO detectors do. ``squash`` resizes each side
separately, as DETR detectors do. A detector must use the same method in training, evaluation and prediction.
"""

from typing import TYPE_CHECKING, Literal, get_args

import cv2
import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Resize = Literal["letterbox", "squash"]
RESIZES = get_args(Resize)
FILL = 114  # grey value outside the image


def to_input(image: np.ndarray, image_hw: tuple[int, int], resize: Resize) -> tuple[np.ndarray, tuple[float, float]]:
    """The network input of an image in evaluation and prediction, by ``letterbox`` or ``squash``."""
    return squash(image, image_hw) if resize == "squash" else letterbox(image, image_hw)


def letterbox(image: np.ndarray, image_hw: tuple[int, int]) -> tuple[np.ndarray, tuple[float, float]]:
    """The image resized to fit, at the top left of a grey canvas.

    Args:
        image: (h, w, 3) uint8.
        image_hw: size of the canvas.

    Returns:
        (H, W, 3) uint8 canvas, and the exact factors (x, y) from the image to the canvas.

    Source: the reference implementation of Ge et al., YOLOX, 2021. https://arxiv.org/abs/2107.08430
        Differs in: a side never becomes 0 pixels.
    """
    height, width = fitted_hw(image.shape[:2], image_hw, "letterbox")
    canvas = blank(image_hw)
    canvas[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return canvas, (width / image.shape[1], height / image.shape[0])


def squash(image: np.ndarray, image_hw: tuple[int, int]) -> tuple[np.ndarray, tuple[float, float]]:
    """The image resized to the canvas with antialiasing; the aspect ratio may change.

    Args:
        image: (h, w, 3) uint8.
        image_hw: size of the canvas.

    Returns:
        (H, W, 3) uint8, and the exact factors (x, y) from the image to it.

    Source: the reference implementation of Zhao et al., DETRs Beat YOLOs on Real-time Object Detection, 2024.
        https://arxiv.org/abs/2304.08069
    """
    height, width = image.shape[:2]
    return resize_antialiased(image, image_hw), (image_hw[1] / width, image_hw[0] / height)


def resize_antialiased(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """(h, w, 3) uint8 resized bilinearly with antialiasing.

    # Note [which resize]
    Published detectors that squash were trained with Pillow's bilinear resize. torch's antialiased resize differs from
    it by at most one grey level and is as fast as cv2.INTER_LINEAR. The latter skips pixels, and INTER_AREA has other
    weights: their mean differences to Pillow are 3.7 and 1.3 grey levels from 960 x 540 to 320 x 320.
    """
    import torch  # letterbox needs no torch

    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"]))  # copied if read-only, as in the cache
    channels_last = pixels[None].permute(0, 3, 1, 2)  # [None] after permute would not be channels_last for torch
    resized = torch.nn.functional.interpolate(channels_last, size_hw, mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def to_unit(images: "Tensor") -> "Tensor":
    """uint8 images as float32 in [0, 1], on the same device."""
    return images.float().div_(255)


def fitted_hw(source_hw: tuple[int, ...], image_hw: tuple[int, int], resize: Resize) -> tuple[int, int]:
    """Size of a source of this size in the canvas, in whole pixels, at least 1."""
    if resize == "squash":
        return image_hw
    ratio = _ratio(source_hw, image_hw)
    return max(1, int(source_hw[0] * ratio)), max(1, int(source_hw[1] * ratio))


def fitting_scale_xy(source_hw: tuple[int, ...], image_hw: tuple[int, int], resize: Resize) -> tuple[float, float]:
    """Exact factors (x, y) from a source of this size to its size in the canvas."""
    if resize == "squash":
        return image_hw[1] / source_hw[1], image_hw[0] / source_hw[0]
    ratio = _ratio(source_hw, image_hw)
    return ratio, ratio


def blank(image_hw: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 grey canvas."""
    return np.full((*image_hw, 3), FILL, np.uint8)


def _ratio(source_hw: tuple[int, ...], image_hw: tuple[int, int]) -> float:
    return min(image_hw[0] / source_hw[0], image_hw[1] / source_hw[1])
