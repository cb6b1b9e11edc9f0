"""Decodes the raw box parameters of a YOLO head, and encodes boxes as parameters."""

import torch
from torch import Tensor

from detkit.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from detkit.ops.distances import distances_to_boxes, expected_distances
from detkit.ops.precision import at_least_float32
from detkit.types import BoxCoding

MAX_LOG = 10.0  # e^10 strides: far beyond any image, and finite in float16


def decode_boxes(parameters: Tensor, points: Tensor, strides: Tensor, box_coding: BoxCoding) -> Tensor:
    """(..., A, D) raw parameters to (..., A, 4) boxes in pixels, in float32 or better.

    Args:
        parameters: see ``YOLOPredictions``.
        points: (A, 2) centres of the cells, pixels.
        strides: (A,) pixels per cell.
        box_coding: "distances" (D = 4R; for R = 1 the logarithm of the distance) or "offsets"
            (D = 4: centre from the cell's top-left corner and log size, in strides).

    Raises:
        ValueError: for another coding.

    Source: "offsets": Ge et al., YOLOX, 2021, §2.1. https://arxiv.org/abs/2107.08430
    """
    parameters = at_least_float32(parameters)
    points, strides = points.to(parameters.dtype), strides.to(parameters.dtype)
    if box_coding == "distances":
        if parameters.shape[-1] == 4:
            return distances_to_boxes(parameters.clamp(max=MAX_LOG).exp(), points, strides)
        return distances_to_boxes(expected_distances(parameters), points, strides)
    if box_coding == "offsets":
        offsets, log_sizes = parameters.split(2, dim=-1)
        centres = offsets * strides[:, None] + points - strides[:, None] / 2
        sizes = log_sizes.clamp(max=MAX_LOG).exp() * strides[:, None]
        return cxcywh_to_xyxy(torch.cat((centres, sizes), dim=-1))
    raise ValueError(f"box_coding must be distances or offsets; got {box_coding!r}")


def encode_offsets(boxes: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """(..., A, 4) boxes in pixels to (..., A, 4) parameters of the coding "offsets".

    Source: Ge et al., YOLOX, 2021, §2.1 (the L1 term's target). https://arxiv.org/abs/2107.08430
    """
    centres, sizes = xyxy_to_cxcywh(boxes).split(2, dim=-1)
    corners = points - strides[:, None] / 2
    return torch.cat(((centres - corners) / strides[:, None], (sizes / strides[:, None] + 1e-8).log()), dim=-1)
