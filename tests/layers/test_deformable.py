"""Deformable attention against loops over queries, heads, levels and points, with gradients checked by differences."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from detkit.layers.deformable import DeformableAttention, Sampling

CHANNELS, HEADS, QUERIES = 8, 2, 5
SIZES_HW = [(6, 4), (3, 5), (1, 2)]
POINTS = [2, 3, 1]


class Inputs(NamedTuple):
    queries: Tensor
    boxes: Tensor
    memory: Tensor


def random_inputs(seed: int, images: int = 2) -> Inputs:
    """In double precision; some boxes lie partly outside of the image, some centres too."""
    rng = torch.Generator().manual_seed(seed)
    cells = sum(height * width for height, width in SIZES_HW)
    random = partial(torch.rand, generator=rng, dtype=torch.float64)
    boxes = torch.cat((random(images, QUERIES, 2) * 1.4 - 0.2, random(images, QUERIES, 2)), dim=-1)
    return Inputs(random(images, QUERIES, CHANNELS) * 2 - 1, boxes, random(images, cells, CHANNELS) * 2 - 1)


def random_attention(sampling: Sampling, seed: int) -> DeformableAttention:
    """All weights random, so that neither offsets nor weights are the same for all queries."""
    torch.manual_seed(seed)
    attention = DeformableAttention(CHANNELS, HEADS, POINTS, sampling).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return attention


def between_cells(level: Tensor, x: float, y: float) -> Tensor:
    """A place in (h, w, channels) by bilinear interpolation between cells' centres; nothing lies outside."""
    height, width, channels = level.shape
    column, row = x * width - 0.5, y * height - 0.5
    read = torch.zeros(channels, dtype=level.dtype)
    for near_row in (math.floor(row), math.floor(row) + 1):
        for near_column in (math.floor(column), math.floor(column) + 1):
            if 0 <= near_row < height and 0 <= near_column < width:
                read += (1 - abs(row - near_row)) * (1 - abs(column - near_column)) * level[near_row, near_column]
    return read


def nearest_corner(level: Tensor, x: float, y: float) -> Tensor:
    height, width, _ = level.shape
    return level[min(max(int(y * height + 0.5), 0), height - 1), min(max(int(x * width + 0.5), 0), width - 1)]


def slow_reference(
    attention: DeformableAttention, inputs: Inputs, read: Callable[[Tensor, float, float], Tensor]
) -> Tensor:
    """Equation 3 of Deformable DETR with the offsets of RT-DETRv2, one point at a time."""
    values = attention.values(inputs.memory)
    attended = torch.zeros_like(inputs.queries)
    per_head = CHANNELS // HEADS
    for image, of_image in enumerate(inputs.queries):
        for query, vector in enumerate(of_image):
            offsets = attention.offsets(vector).view(HEADS, sum(POINTS), 2).tolist()
            weights = attention.weights(vector).view(HEADS, sum(POINTS)).softmax(-1)
            x, y, width, height = inputs.boxes[image, query].tolist()
            for head in range(HEADS):
                channels = slice(head * per_head, (head + 1) * per_head)
                first_cell = point = 0
                for (rows, columns), points in zip(SIZES_HW, POINTS, strict=True):
                    cells = values[image, first_cell : first_cell + rows * columns, channels]
                    level = cells.view(rows, columns, per_head)
                    first_cell += rows * columns
                    for _ in range(points):
                        dx, dy = offsets[head][point]
                        place = x + dx / points * width * 0.5, y + dy / points * height * 0.5
                        attended[image, query, channels] += weights[head, point] * read(level, *place)
                        point += 1
    return attention.output(attended)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("sampling", "read"), [("bilinear", between_cells), ("discrete", nearest_corner)])
def test_agrees_with_slow_reference(sampling: Sampling, read: Callable[..., Tensor], seed: int) -> None:
    attention, inputs = random_attention(sampling, seed), random_inputs(seed)
    with torch.no_grad():
        torch.testing.assert_close(attention(*inputs, SIZES_HW), slow_reference(attention, inputs, read))


def test_gradients_agree_with_differences() -> None:
    attention, inputs = random_attention("bilinear", 0), random_inputs(0, images=1)
    for value in inputs:
        value.requires_grad_()
    assert torch.autograd.gradcheck(lambda *values: attention(*values, SIZES_HW), tuple(inputs))


def test_discrete_learns_what_to_read_but_not_where() -> None:
    attention, inputs = random_attention("discrete", 0), random_inputs(0)
    for value in inputs:
        value.requires_grad_()
    attention(*inputs, SIZES_HW).sum().backward()
    assert inputs.boxes.grad is None
    assert inputs.queries.grad is not None and inputs.memory.grad is not None
    silent = {name for name, parameter in attention.named_parameters() if parameter.grad is None}
    assert silent == {"offsets.weight", "offsets.bias"}
    assert not any(parameter.requires_grad for parameter in attention.offsets.parameters())


def test_heads_start_in_directions_of_their_own() -> None:
    """Eight heads point to the sides and corners of a square, one step further with each point of a level."""
    attention = DeformableAttention(16, 8, [2, 1])
    directions = [[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1]]
    steps = torch.tensor([1.0, 2.0, 1.0])
    expected = torch.tensor(directions)[:, None] * steps[:, None]
    offsets = attention.offsets(torch.randn(16)).view(8, 3, 2)  # whatever the query
    torch.testing.assert_close(offsets, expected)


def test_all_points_weigh_the_same_at_the_start() -> None:
    """Over levels that are constant, what is read is their mean, each counted as often as it has points."""
    attention = DeformableAttention(CHANNELS, HEADS, POINTS)
    constants = torch.randn(3, CHANNELS)
    memory = constants.repeat_interleave(16, dim=0).expand(1, -1, -1)
    in_the_middle = torch.tensor([0.5, 0.5, 0.1, 0.1]).expand(1, QUERIES, 4)
    read = attention(torch.randn(1, QUERIES, CHANNELS), in_the_middle, memory, [(4, 4)] * 3)
    mean = (constants * torch.tensor(POINTS)[:, None]).sum(0) / sum(POINTS)
    torch.testing.assert_close(read, attention.output(attention.values(mean)).expand_as(read))


@pytest.mark.parametrize("sampling", ["bilinear", "discrete"])
def test_autocast_leaves_the_places_fine(sampling: Sampling) -> None:
    """Neighbours 1/256 of the image apart are told apart, which a place in bfloat16 could not say."""
    width = 512
    attention = DeformableAttention(4, 1, [1], sampling)
    with torch.no_grad():
        for layer in (attention.values, attention.output):
            layer.weight.copy_(torch.eye(4))
            layer.bias.zero_()
        attention.offsets.bias.zero_()
    memory = (torch.arange(width).float() % 2)[None, :, None].expand(1, width, 4)
    columns = torch.arange(300, 310)
    shift = 0.5 if sampling == "bilinear" else 0.0
    centres = torch.stack(((columns + shift) / width, torch.full((10,), 0.5)), dim=-1)
    boxes = torch.cat((centres, torch.full((10, 2), 0.1)), dim=-1)[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        read = attention(torch.randn(1, 10, 4), boxes, memory, [(1, width)])
    assert read.float()[0, :, 0].tolist() == (columns % 2).tolist()


def test_autocast_is_close_to_float32() -> None:
    attention, inputs = random_attention("bilinear", 0).float(), random_inputs(0)
    values = [value.float() for value in inputs]
    exact = attention(*values, SIZES_HW)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = attention(*values, SIZES_HW)
    torch.testing.assert_close(coarse.float(), exact, rtol=0, atol=0.05 * exact.abs().max().item())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DeformableAttention(10, 4, [4]), "multiple of num_heads; got 10 and 4"),
        (lambda: DeformableAttention(8, 4, [4, 0]), r"at least 1 for each level; got \[4, 0\]"),
        (lambda: DeformableAttention(8, 4, [4], "nearest"), "bilinear or discrete; got 'nearest'"),  # type: ignore[arg-type]
    ],
)
def test_wrong_arguments_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
