"""Box formats and functions of single boxes. A plain ``boxes`` is xyxy in pixels."""

import torch
from torch import Tensor


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(..., 4) corners to (..., 4) centre and size."""
    top_left, bottom_right = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((top_left + bottom_right) / 2, bottom_right - top_left), dim=-1)


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """(..., 4) centre and size to (..., 4) corners."""
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def xyxy_to_cxcywh_norm(boxes: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """(..., 4) corners in pixels to (..., 4) centre and size as fractions of the image's sides."""
    height, width = image_hw
    return _stretch(xyxy_to_cxcywh(boxes), 1 / width, 1 / height)


def cxcywh_norm_to_xyxy(boxes_cxcywh_norm: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """(..., 4) centre and size as fractions of the image's sides to (..., 4) corners in pixels."""
    height, width = image_hw
    return _stretch(cxcywh_to_xyxy(boxes_cxcywh_norm), width, height)


def box_areas(boxes: Tensor) -> Tensor:
    """(..., 4) to (...) square pixels; 0 where a side is negative."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def clip_boxes(boxes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """(..., 4) boxes limited to an image of this size."""
    height, width = size_hw
    limits = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limits)


def inverse_sigmoid(values: Tensor, eps: float = 1e-5) -> Tensor:
    """Values in [0, 1] to logits; values nearer to 0 or 1 than ``eps`` are limited to about -11.5 or 11.5."""
    values = values.clamp(0, 1)
    return values.clamp(min=eps).log() - (1 - values).clamp(min=eps).log()  # float16 does not hold the quotient


def boxes_to_original(
    boxes: Tensor,
    original_hw: tuple[int, int],
    scale_xy: tuple[float, float],
    pad_xy: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """(K, 4) boxes in pixels of the network input to pixels of the original image, clipped to it.

    The arguments are those of a ``Target``.
    """
    return clip_boxes((boxes - boxes.new_tensor(pad_xy * 2)) / boxes.new_tensor(scale_xy * 2), original_hw)


def _stretch(boxes: Tensor, factor_x: float, factor_y: float) -> Tensor:
    """Both formats have x, y, x, y in this order. Plain numbers, because copying a tensor to the device would block."""
    return torch.stack((boxes[..., 0::2] * factor_x, boxes[..., 1::2] * factor_y), dim=-1).flatten(-2)
