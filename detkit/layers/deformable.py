"""Attention to a few points of each feature map, at places that the query predicts."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Sampling = Literal["bilinear", "discrete"]


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention: each head of a query reads points of all levels and weighs them.

    Points lie around the query's box: its centre plus an offset in half sides of the box, divided by the
    number of points of the level.

    Args:
        channels: of queries and values.
        num_heads: each has channels / num_heads of them.
        num_points: for each level.
        sampling: "bilinear": between the four cells around the point, zero outside of the map; "discrete": the
            one cell whose upper left corner is nearest. Then where to look cannot be learnt: the offsets'
            weights are frozen.

    Raises:
        ValueError: if channels are no multiple of the heads, a level has no point, or the sampling is another word.

    Source: Zhu et al., Deformable DETR, 2020, eq. 3. https://arxiv.org/abs/2010.04159
        Discrete, points per level: Lv et al., RT-DETRv2, 2024, §3.1. https://arxiv.org/abs/2407.17140
        Differs from its code in: a discrete point is held inside the map by height and width, not by height alone.
    """

    def __init__(self, channels: int, num_heads: int, num_points: list[int], sampling: Sampling = "bilinear") -> None:
        super().__init__()
        refuse_uneven_heads(channels, num_heads)
        if min(num_points) < 1:
            raise ValueError(f"num_points must be at least 1 for each level; got {num_points}")
        if sampling not in get_args(Sampling):
            raise ValueError(f"sampling must be bilinear or discrete; got {sampling!r}")
        self.num_heads = num_heads
        self.num_points = num_points
        self.sampling: Sampling = sampling
        total = sum(num_points)
        self.offsets = nn.Linear(channels, num_heads * total * 2)
        self.weights = nn.Linear(channels, num_heads * total)
        self.values = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self._start()

    def _start(self) -> None:
        """Initial offsets: each head in its own direction, further with each point, with equal weights."""
        angles = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.cat([torch.arange(1.0, points + 1) for points in self.num_points])
        with torch.no_grad():
            self.offsets.bias.copy_((directions[:, None] * steps[:, None]).flatten())
            for layer in (self.offsets, self.weights):
                layer.weight.zero_()
            for layer in (self.values, self.output):
                nn.init.xavier_uniform_(layer.weight)
            for layer in (self.weights, self.values, self.output):
                layer.bias.zero_()
        if self.sampling == "discrete":
            self.offsets.requires_grad_(False)

    def forward(
        self, queries: Tensor, boxes_cxcywh_norm: Tensor, memory: Tensor, sizes_hw: list[tuple[int, int]]
    ) -> Tensor:
        """Look around boxes.

        Args:
            queries: (B, Q, channels).
            boxes_cxcywh_norm: (B, Q, 4) around which they look, in float32 at least: the eight bits of a bfloat16
                are too coarse for a place.
            memory: (B, cells of all levels, channels).
            sizes_hw: (height, width) of each level.

        Returns:
            (B, Q, channels).
        """
        images, num_queries, _ = queries.shape
        weights = self.weights(queries).view(images, num_queries, self.num_heads, -1)
        weights = weights.softmax(-1).transpose(1, 2).flatten(0, 1)
        places = self._places(queries, boxes_cxcywh_norm)
        read_level = _between_cells if self.sampling == "bilinear" else _nearest_corners
        levels = zip(self._maps(memory, sizes_hw), places.split(self.num_points, dim=2), strict=True)
        read = [read_level(level, level_places) for level, level_places in levels]
        attended = (torch.cat(read, dim=-1) * weights[:, None]).sum(-1)  # (B * heads, channels / heads, Q)
        attended = attended.view(images, -1, num_queries).transpose(1, 2)
        return self.output(attended.to(queries.dtype))

    def _maps(self, memory: Tensor, sizes_hw: list[tuple[int, int]]) -> list[Tensor]:
        """The values of each level: (B * heads, channels / heads, h, w)."""
        values = self.values(memory).transpose(1, 2)
        levels = values.split([height * width for height, width in sizes_hw], dim=2)
        return [
            level.reshape(memory.shape[0] * self.num_heads, -1, height, width)
            for level, (height, width) in zip(levels, sizes_hw, strict=True)
        ]

    def _places(self, queries: Tensor, boxes_cxcywh_norm: Tensor) -> Tensor:
        """(B * heads, Q, points of all levels, 2) places (x, y), 0 to 1 over the image."""
        images, num_queries, _ = queries.shape
        offsets = self.offsets(queries).view(images, num_queries, self.num_heads, -1, 2)
        centres, sides = boxes_cxcywh_norm[:, :, None, None].split(2, dim=-1)
        scale = torch.cat([sides.new_full((points, 1), 0.5 / points) for points in self.num_points])
        return (centres + offsets * scale * sides).transpose(1, 2).flatten(0, 1)


def refuse_uneven_heads(channels: int, num_heads: int) -> None:
    """Refuse channels that cannot be divided equally among the heads."""
    if channels % num_heads:
        raise ValueError(f"channels must be a multiple of num_heads; got {channels} and {num_heads}")


def _between_cells(level: Tensor, places: Tensor) -> Tensor:
    """(N, channels, h, w) at (N, Q, points, 2) places to (N, channels, Q, points), in the places' precision."""
    grid = 2 * places - 1
    return F.grid_sample(level.to(grid.dtype), grid, padding_mode="zeros", align_corners=False)


def _nearest_corners(level: Tensor, places: Tensor) -> Tensor:
    """As ``_between_cells``, of one cell each."""
    height, width = level.shape[-2:]
    columns = (places[..., 0] * width + 0.5).long().clamp(0, width - 1)
    rows = (places[..., 1] * height + 0.5).long().clamp(0, height - 1)
    cells = rows * width + columns
    gathered = level.flatten(2).gather(2, cells.flatten(1)[:, None].expand(-1, level.shape[1], -1))
    return gathered.unflatten(2, cells.shape[1:])
