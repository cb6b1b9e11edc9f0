"""An image at the size of the network's input: letterboxed or squashed.

``letterbox`` keeps the aspect ratio and fills up with grey, as YOLO detectors have it; ``squash`` gives both sides
their length, as DETR-type detectors have it. A detector must see the same in training, evaluation and use.
"""

from typing import TYPE_CHECKING, Literal, get_args

import cv2
import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Resize = Literal["letterbox", "squash"]
RESIZES = get_args(Resize)
FILL = 114  # the grey where there is no image


def to_input(image: np.ndarray, image_hw: tuple[int, int], resize: Resize) -> tuple[np.ndarray, tuple[float, float]]:
    """What a detector sees of an image outside of training: ``letterbox`` or ``squash``, as it was trained with."""
    return squash(image, image_hw) if resize == "squash" else letterbox(image, image_hw)


def letterbox(image: np.ndarray, image_hw: tuple[int, int]) -> tuple[np.ndarray, tuple[float, float]]:
    """Image resized to fit, at the top left of a grey canvas.

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
    """Image resized to the canvas, whatever its aspect ratio, antialiased.

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
    """(h, w, 3) uint8 at another size, bilinear; where it shrinks, over all pixels that fall into one.

    # Note [which resize]
    Published detectors that squash were trained on Pillow's bilinear. torch's antialiased one gives the same to a
    grey level, at the cost of cv2's plain one. From 960 x 540 to 320 x 320 the mean difference to Pillow is 3.7 grey
    levels for cv2.INTER_LINEAR, which skips pixels, and 1.3 for INTER_AREA, whose weights are other ones.
    """
    import torch  # here: a letterbox needs no torch

    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"]))  # cached ones are read-only
    channels_last = pixels[None].permute(0, 3, 1, 2)  # as torch knows it: [None] after permute takes ten times as long
    resized = torch.nn.functional.interpolate(channels_last, size_hw, mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def to_unit(images: "Tensor") -> "Tensor":
    """uint8 images as float32 in [0, 1], on the device that they are on: what a network is given."""
    return images.float().div_(255)


def fitted_hw(source_hw: tuple[int, ...], image_hw: tuple[int, int], resize: Resize) -> tuple[int, int]:
    """Size at which a source fills the canvas, or fits it with its aspect ratio kept; at least a pixel."""
    if resize == "squash":
        return image_hw
    ratio = _ratio(source_hw, image_hw)
    return max(1, int(source_hw[0] * ratio)), max(1, int(source_hw[1] * ratio))


def fitting_scale_xy(source_hw: tuple[int, ...], image_hw: tuple[int, int], resize: Resize) -> tuple[float, float]:
    """Factors at which a source fills or fits the canvas, before any rounding to pixels."""
    if resize == "squash":
        return image_hw[1] / source_hw[1], image_hw[0] / source_hw[0]
    ratio = _ratio(source_hw, image_hw)
    return ratio, ratio


def blank(image_hw: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 grey canvas."""
    return np.full((*image_hw, 3), FILL, np.uint8)


def _ratio(source_hw: tuple[int, ...], image_hw: tuple[int, int]) -> float:
    return min(image_hw[0] / source_hw[0], image_hw[1] / source_hw[1])
