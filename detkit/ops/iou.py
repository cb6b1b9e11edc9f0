"""Overlap of boxes: IoU and its generalised and complete forms, computed in float32 or better."""

import math
from typing import Literal

import torch
from torch import Tensor

from detkit.ops.boxes import box_areas
from detkit.ops.precision import at_least_float32

IouKind = Literal["iou", "giou", "ciou"]
EPSILON = 1e-7


def pairwise_iou(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """(..., N, 4) and (..., M, 4) boxes to (..., N, M) intersection over union."""
    boxes_a, boxes_b = at_least_float32(boxes_a), at_least_float32(boxes_b)
    intersection = _intersection(boxes_a[..., :, None, :], boxes_b[..., None, :, :])
    union = box_areas(boxes_a)[..., :, None] + box_areas(boxes_b)[..., None, :] - intersection
    return intersection / union.clamp(min=EPSILON)


def pairwise_coverage(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """(..., N, 4) and (..., M, 4) boxes to (..., N, M): the part of each box a that lies in box b."""
    intersection = _intersection(boxes_a[..., :, None, :], boxes_b[..., None, :, :])
    return intersection / box_areas(boxes_a)[..., :, None].clamp(min=EPSILON)


def aligned_iou(boxes_a: Tensor, boxes_b: Tensor, kind: IouKind = "iou") -> Tensor:
    """(..., 4) and (..., 4) boxes to (...) overlap of each pair.

    Args:
        boxes_a: predictions, xyxy.
        boxes_b: ground truth, xyxy in the same unit.
        kind: "iou" in [0, 1]; "giou" in (-1, 1]; "ciou" in (-2, 1].

    Raises:
        ValueError: for another kind.

    Source: Rezatofighi et al., Generalized IoU, 2019, alg. 1. https://arxiv.org/abs/1902.09630
        Zheng et al., Distance-IoU, 2020, eqs. 10-12. https://arxiv.org/abs/1911.08287
    """
    boxes_a, boxes_b = at_least_float32(boxes_a), at_least_float32(boxes_b)
    intersection = _intersection(boxes_a, boxes_b)
    union = box_areas(boxes_a) + box_areas(boxes_b) - intersection
    iou = intersection / union.clamp(min=EPSILON)
    if kind == "iou":
        return iou
    hull_wh = torch.maximum(boxes_a[..., 2:], boxes_b[..., 2:]) - torch.minimum(boxes_a[..., :2], boxes_b[..., :2])
    if kind == "giou":
        hull = (hull_wh[..., 0] * hull_wh[..., 1]).clamp(min=EPSILON)
        return iou - (hull - union) / hull
    if kind == "ciou":
        return iou - _centre_distance(boxes_a, boxes_b, hull_wh) - _aspect_penalty(boxes_a, boxes_b, iou)
    raise ValueError(f"kind must be iou, giou or ciou; got {kind!r}")


def _intersection(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    top_left = torch.maximum(boxes_a[..., :2], boxes_b[..., :2])
    bottom_right = torch.minimum(boxes_a[..., 2:], boxes_b[..., 2:])
    sides = (bottom_right - top_left).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def _centre_distance(boxes_a: Tensor, boxes_b: Tensor, hull_wh: Tensor) -> Tensor:
    """Squared distance of the centres over the squared diagonal of the hull."""
    offset = (boxes_a[..., :2] + boxes_a[..., 2:] - boxes_b[..., :2] - boxes_b[..., 2:]) / 2
    return offset.square().sum(-1) / hull_wh.square().sum(-1).clamp(min=EPSILON)


def _aspect_penalty(boxes_a: Tensor, boxes_b: Tensor, iou: Tensor) -> Tensor:
    angles = []
    for boxes in (boxes_a, boxes_b):
        width, height = (boxes[..., 2:] - boxes[..., :2]).clamp(min=EPSILON).unbind(-1)
        angles.append(torch.atan(width / height))
    difference = (4 / math.pi**2) * (angles[0] - angles[1]).square()
    with torch.no_grad():
        trade_off = difference / (1 - iou + difference).clamp(min=EPSILON)
    return trade_off * difference
