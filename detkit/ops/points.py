"""Anchor points: the centres of the cells of the feature maps, in pixels of the network input."""

from collections.abc import Sequence

import torch
from torch import Tensor


def anchor_points(
    sizes_hw: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Centres and strides of all cells; levels in the given order, rows before columns.

    Args:
        sizes_hw: (height, width) of each feature map, in cells.
        strides: pixels per cell of each map.
        device: where the result lies.

    Returns:
        (A, 2) centres (x, y) in pixels, and (A,) strides, both float32.

    Raises:
        ValueError: if the two lists differ in length.
    """
    if len(sizes_hw) != len(strides):
        raise ValueError(f"one stride for each feature map; got {len(sizes_hw)} maps and {len(strides)} strides")
    points, all_strides = [], []
    for (height, width), stride in zip(sizes_hw, strides, strict=True):
        y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * stride
        x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * stride
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        points.append(torch.stack((grid_x, grid_y), dim=-1).reshape(-1, 2))
        all_strides.append(torch.full((height * width,), float(stride), device=device))
    return torch.cat(points), torch.cat(all_strides)
