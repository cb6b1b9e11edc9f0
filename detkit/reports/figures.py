"""Figures of a page as inline SVG and data URIs, so that a page needs no other file and no script."""

import base64
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from markupsafe import Markup

from detkit.reports.page import render

COLOURS = {"train": "#2f6fd6", "val": "#e07b2a", "test": "#2f9e63"}  # of a split, in all figures
_OTHER_COLOUR = "#7a7a85"
_WIDTH, _HEIGHT = 460, 190  # of a histogram
_LEFT, _RIGHT, _TOP, _FLOOR = 8, _WIDTH - 8, 24, _HEIGHT - 22  # edges of its plotting area
_PLACES = {"width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "right": _RIGHT, "top": _TOP, "floor": _FLOOR}
_MAP_CELLS, _MAP_BLUR = 48, 1.5  # cells along a side of a place map; standard deviation of its blur, in cells
_MAP_PX = 192
_JPEG_QUALITY = 82


class Border(NamedTuple):
    """A dashed line in a histogram, and the name of the range that ends there."""

    value: float
    name: str


class _Outline(NamedTuple):
    name: str
    colour: str
    points: list[tuple[float, float]]


class _Label(NamedTuple):
    x: float
    text: str
    anchor: str = "end"


def colour_of_split(name: str) -> str:
    """The colour of a split, the same in all figures."""
    return COLOURS.get(name, _OTHER_COLOUR)


def histogram(
    title: str, values: Mapping[str, np.ndarray], ticks: Sequence[float], borders: Sequence[Border], per_octave: int = 2
) -> Markup:
    """Shares of the values over a logarithmic axis, one outline for each split.

    Args:
        title: above the figure.
        values: positive numbers of each split; an empty array is not drawn.
        ticks: of the axis, powers of two; values beyond the first and the last are counted in the outer bins.
        borders: between named ranges.
        per_octave: bins between a number and its double.

    Returns:
        An ``svg`` element.
    """
    low, high = np.log2(ticks[0]), np.log2(ticks[-1])
    bins = max(1, round((high - low) * per_octave))

    def x_of(value: float) -> float:
        return _LEFT + (np.log2(value) - low) / (high - low) * (_RIGHT - _LEFT)

    shares = {name: _shares(array, low, high, bins) for name, array in values.items() if len(array)}
    highest = max((share.max() for share in shares.values()), default=1.0)
    anchors = ["start", *["middle"] * (len(ticks) - 2), "end"]
    return render(
        "histogram.svg",
        **_PLACES,
        title=title,
        outlines=[_Outline(name, colour_of_split(name), _steps(share / highest)) for name, share in shares.items()],
        borders=[_Label(x_of(border.value), border.name) for border in borders],
        ticks=[_Label(x_of(tick), _number(tick), anchor) for tick, anchor in zip(ticks, anchors, strict=True)],
    )


def place_map(centres_norm: np.ndarray) -> str:
    """Density of the boxes' centres over the image, brightest where most are, as the data URI of a PNG.

    Args:
        centres_norm: (N, 2) x and y, divided by the image's width and height.
    """
    inside = np.clip(centres_norm.reshape(-1, 2), 0, 1 - 1e-9)
    counts, _, _ = np.histogram2d(inside[:, 1], inside[:, 0], bins=_MAP_CELLS, range=((0, 1), (0, 1)))
    density = cv2.GaussianBlur(counts, (0, 0), _MAP_BLUR, borderType=cv2.BORDER_ISOLATED | cv2.BORDER_CONSTANT)
    shade = np.sqrt(density / max(density.max(), 1e-9))  # the root keeps rare places visible
    large = cv2.resize(shade, (_MAP_PX, _MAP_PX), interpolation=cv2.INTER_LINEAR)
    return _data_uri(cv2.applyColorMap(np.rint(large * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS), "png")


def jpeg_uri(image: np.ndarray) -> str:
    """(H, W, 3) uint8 RGB as the data URI of a JPEG."""
    return _data_uri(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), "jpeg", cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY)


def _data_uri(image_bgr: np.ndarray, kind: str, *options: int) -> str:
    _, encoded = cv2.imencode(f".{kind}", image_bgr, options)
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"


def _shares(values: np.ndarray, low: float, high: float, bins: int) -> np.ndarray:
    """(bins,) of the values in each bin, summing to 1."""
    logarithms = np.clip(np.log2(np.maximum(values, 1e-12)), low, high)
    return np.histogram(logarithms, bins=bins, range=(low, high))[0] / len(values)


def _steps(heights: np.ndarray) -> list[tuple[float, float]]:
    """Corners (x, y) of the steps of a histogram whose highest bin has the height 1."""
    edges = np.linspace(_LEFT, _RIGHT, len(heights) + 1)
    tops = _FLOOR - heights * (_FLOOR - _TOP - 14)
    return list(zip(np.repeat(edges, 2)[1:-1].tolist(), np.repeat(tops, 2).tolist(), strict=True))


def _number(value: float) -> str:
    return f"{value:g}" if value >= 1 else f"1/{1 / value:g}"
