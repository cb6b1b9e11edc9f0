"""Distances from an anchor point to the four sides of a box (left, top, right, bottom)."""

import torch
from torch import Tensor


def boxes_to_distances(boxes: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """(..., A, 4) boxes and (A, 2) points in pixels to (..., A, 4) distances in strides."""
    distances_px = torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), dim=-1)
    return distances_px / strides[:, None]


def distances_to_boxes(distances: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """(..., A, 4) distances in strides to (..., A, 4) boxes in pixels."""
    distances_px = distances * strides[:, None]
    return torch.cat((points - distances_px[..., :2], points + distances_px[..., 2:]), dim=-1)


def expected_distances(logits: Tensor) -> Tensor:
    """(..., 4R) logits over the bins 0 .. R-1 to (..., 4) mean distances in strides.

    Not a matrix product: autocast would compute that in bfloat16 or float16, and move boxes by up to two pixels.

    Source: Li et al., Generalized Focal Loss, 2020, eq. 4. https://arxiv.org/abs/2006.04388
    """
    num_bins = logits.shape[-1] // 4
    bins = torch.arange(num_bins, device=logits.device, dtype=logits.dtype)
    return (logits.unflatten(-1, (4, num_bins)).softmax(dim=-1) * bins).sum(dim=-1)
