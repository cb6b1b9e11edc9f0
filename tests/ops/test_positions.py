"""Sine positions by their closed form, one cell and one channel at a time."""

import math

import pytest
import torch

from detkit.ops.positions import sine_positions


@pytest.mark.parametrize("size_hw", [(3, 3), (2, 5), (5, 2), (1, 1)], ids=str)
def test_closed_form(size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    positions = sine_positions(size_hw, 16, torch.zeros(()))
    assert positions.shape == (height * width, 16)
    for row in range(height):
        for column in range(width):
            for i in range(4):
                frequency = 10_000 ** (-i / 4)
                expected = [wave(place * frequency) for place in (row, column) for wave in (math.sin, math.cos)]
                ours = positions[row * width + column, i::4].tolist()
                assert ours == pytest.approx(expected, abs=1e-6)


def test_temperature() -> None:
    assert sine_positions((1, 2), 8, torch.zeros(()), temperature=4.0)[1, 5].item() == pytest.approx(math.sin(1 / 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_precision_is_that_of_the_features(dtype: torch.dtype) -> None:
    """Angles are never computed in less than float32: of cell 300 bfloat16 knows no column."""
    positions = sine_positions((1, 302), 4, torch.zeros((), dtype=dtype))
    assert positions.dtype == dtype
    tolerance = 2**-8 if dtype == torch.bfloat16 else 1e-12
    assert positions[301, 2].item() == pytest.approx(math.sin(301), abs=tolerance)


def test_channels_are_a_multiple_of_four() -> None:
    with pytest.raises(ValueError, match="channels must be a multiple of 4; got 10"):
        sine_positions((2, 2), 10, torch.zeros(()))
