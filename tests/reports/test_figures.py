"""Figures show the numbers that they are given."""

import re

import numpy as np
import pytest

from detkit.reports.figures import Border, histogram, place_map
from tests.helpers.html_page import pixels


def test_histogram_shows_the_shares() -> None:
    """Half of the values in the bin from 8 to 16, a quarter each below and above; beyond the ends counts there."""
    svg = histogram("title <b>", {"train": np.array([5, 9, 15, 1e6])}, (4, 8, 16, 32), (Border(16, "small"),), 1)
    assert "title &lt;b&gt;" in svg and svg.count("<path") == 1
    outline = re.search(r'd="([^"]+)"', svg)
    assert outline is not None
    heights = [float(y) for y in re.findall(r"L[\d.]+,([\d.]+)", outline[1])]
    floor = 168
    assert [(floor - y) / (floor - min(heights)) for y in heights[:6]] == pytest.approx([0.5, 0.5, 1, 1, 0.5, 0.5])
    [at] = re.findall(r'class="mark" x1="([\d.]+)"', svg)
    assert float(at) == pytest.approx(8 + 444 * 2 / 3, abs=0.1)
    assert "<path" not in histogram("t", {"train": np.zeros(0)}, (1, 2), ())


def test_place_map_is_brightest_where_the_boxes_are() -> None:
    centres = np.array([[0.9, 0.1]] * 5 + [[0.1, 0.9], [2.0, -1.0]])
    green = pixels(place_map(centres))[..., 1]  # rises with the values of this map of colours
    row, column = np.unravel_index(green.argmax(), green.shape)
    assert row / len(green) == pytest.approx(0.1, abs=0.03) and column / len(green) == pytest.approx(0.9, abs=0.03)
    assert green[len(green) // 2, len(green) // 2] < green[int(0.9 * len(green)), int(0.1 * len(green))]
    assert place_map(np.zeros((0, 2))).startswith("data:image/png;base64,")
