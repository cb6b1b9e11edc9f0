"""Position encodings of the cells of a feature map, for attention."""

import torch
from torch import Tensor


def sine_positions(size_hw: tuple[int, int], channels: int, like: Tensor, temperature: float = 10_000.0) -> Tensor:
    """Sines and cosines of a cell's row and column, at frequencies that fall from 1 to about 1 / temperature.

    Args:
        size_hw: (height, width) of the map, in cells.
        channels: of the result, a multiple of 4: sin(row), cos(row), sin(column), cos(column).
        like: whose device and precision the result has.
        temperature: base of the frequencies.

    Returns:
        (H * W, channels), rows before columns.

    Raises:
        ValueError: if the channels are no multiple of 4.

    Source: Vaswani et al., Attention Is All You Need, 2017, §3.5, for two axes. https://arxiv.org/abs/1706.03762
    """
    if channels % 4:
        raise ValueError(f"channels must be a multiple of 4; got {channels}")
    dtype = torch.promote_types(like.dtype, torch.float32)
    steps = torch.arange(channels // 4, device=like.device, dtype=dtype) / (channels // 4)
    frequencies = temperature**-steps
    rows, columns = (torch.arange(side, device=like.device, dtype=dtype) for side in size_hw)
    row_angles, column_angles = (
        place.flatten()[:, None] * frequencies for place in torch.meshgrid(rows, columns, indexing="ij")
    )
    angles = (row_angles.sin(), row_angles.cos(), column_angles.sin(), column_angles.cos())
    return torch.cat(angles, dim=1).to(like.dtype)
