"""Windows over an image. Without heavy imports, because the options are checked before torch is imported."""

import itertools
import math
from collections.abc import Iterator

LEAST_SLICE = 32
MOST_OVERLAP = 0.9


def grid(image_hw: tuple[int, int], slices: int, overlap: float) -> Iterator[tuple[int, int, int, int]]:
    """The fewest windows (xyxy) that cover the image with at least this overlap, evenly spread, row by row."""
    height, width = image_hw
    for y, x in itertools.product(_starts(height, slices, overlap), _starts(width, slices, overlap)):
        yield x, y, min(x + slices, width), min(y + slices, height)


def _starts(length: int, slices: int, overlap: float) -> list[int]:
    """The starts of the windows along a side."""
    step = max(1, math.floor(slices * (1 - overlap)))
    steps = math.ceil(max(0, length - slices) / step)
    return [round(number * (length - slices) / steps) for number in range(steps + 1)] if steps else [0]
