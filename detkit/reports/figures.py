"""Figures of a data report as inline SVG and data URIs, by plain code: a report needs no other file and no script."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import cv2
import numpy as np

COLOURS = {"train": "#2f6fd6", "val": "#e07b2a", "test": "#2f9e63"}  # of a split, in all figures
_OTHER_COLOUR = "#7a7a85"
_WIDTH, _HEIGHT = 460, 190  # of a histogram
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 24, 22
_MAP_CELLS, _MAP_BLUR = 48, 1.5  # a side of a map of places, and how far a box is felt, in cells
_MAP_PX = 192
_JPEG_QUALITY = 82


class Mark(NamedTuple):
    """A border that a histogram shows, and what the values up to it are called."""

    value: float
    name: str


def colour_of_split(name: str) -> str:
    """One colour for a split wherever it is drawn."""
    return COLOURS.get(name, _OTHER_COLOUR)


def histogram(
    title: str, values: Mapping[str, np.ndarray], ticks: Sequence[float], marks: Sequence[Mark], per_octave: int = 2
) -> str:
    """Shares of the values over a logarithmic axis, one outline for each split.

    Args:
        title: above the figure.
        values: positive numbers of each split; an empty array is not drawn.
        ticks: of the axis, powers of two; values beyond the first and the last are counted there.
        marks: borders between named ranges.
        per_octave: bins between a number and its double.

    Returns:
        An ``svg`` element.
    """
    low, high = np.log2(ticks[0]), np.log2(ticks[-1])
    bins = max(1, round((high - low) * per_octave))

    def place(value: float) -> float:
        return _LEFT + (np.log2(value) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    shares = {name: _shares(array, low, high, bins) for name, array in values.items() if len(array)}
    highest = max((share.max() for share in shares.values()), default=1.0)
    outlines = [_outline(name, share, highest) for name, share in shares.items()]
    lines = [
        f'<line class="mark" x1="{place(mark.value):.1f}" x2="{place(mark.value):.1f}" y1="{_TOP}" '
        f'y2="{_HEIGHT - _BOTTOM}"/><text class="mark" text-anchor="end" x="{place(mark.value) - 4:.1f}" '
        f'y="{_TOP + 9}">{escape(mark.name)}</text>'
        for mark in marks
    ]
    numbers = [
        f'<text text-anchor="{_anchor(at, len(ticks))}" x="{place(tick):.1f}" y="{_HEIGHT - 7}">{_number(tick)}</text>'
        for at, tick in enumerate(ticks)
    ]
    base = f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_HEIGHT - _BOTTOM}" y2="{_HEIGHT - _BOTTOM}"/>'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" font-size="11" role="img" aria-label="{escape(title)}">'
        f'<text class="title" x="{_LEFT}" y="13">{escape(title)}</text>'
        f"{''.join([*lines, *outlines, base, *numbers])}</svg>"
    )


def place_map(centres_norm: np.ndarray) -> str:
    """Where in the image the boxes' centres lie, smoothed, darkest for none, as the data URI of a PNG.

    Args:
        centres_norm: (N, 2) x and y, divided by the image's width and height.
    """
    inside = np.clip(centres_norm.reshape(-1, 2), 0, 1 - 1e-9)
    counts, _, _ = np.histogram2d(inside[:, 1], inside[:, 0], bins=_MAP_CELLS, range=((0, 1), (0, 1)))
    density = cv2.GaussianBlur(counts, (0, 0), _MAP_BLUR, borderType=cv2.BORDER_ISOLATED | cv2.BORDER_CONSTANT)
    shade = np.sqrt(density / max(density.max(), 1e-9))  # so that rare places are still seen beside the most frequent
    large = cv2.resize(shade, (_MAP_PX, _MAP_PX), interpolation=cv2.INTER_LINEAR)
    coloured = cv2.applyColorMap(np.rint(large * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    _, png = cv2.imencode(".png", coloured)
    return f"data:image/png;base64,{base64.b64encode(png.tobytes()).decode()}"


def jpeg_uri(image: np.ndarray) -> str:
    """(H, W, 3) uint8 RGB as the data URI of a JPEG."""
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode()}"


def _shares(values: np.ndarray, low: float, high: float, bins: int) -> np.ndarray:
    """(bins,) of the values in each bin, summing to 1."""
    logarithms = np.clip(np.log2(np.maximum(values, 1e-12)), low, high)
    return np.histogram(logarithms, bins=bins, range=(low, high))[0] / len(values)


def _outline(name: str, shares: np.ndarray, highest: float) -> str:
    step = (_WIDTH - _LEFT - _RIGHT) / len(shares)
    floor = _HEIGHT - _BOTTOM
    points = [f"M{_LEFT},{floor}"]
    for at, share in enumerate(shares):
        y = floor - share / highest * (floor - _TOP - 14)
        points += [f"L{_LEFT + at * step:.1f},{y:.1f}", f"L{_LEFT + (at + 1) * step:.1f},{y:.1f}"]
    points.append(f"L{_WIDTH - _RIGHT},{floor}Z")
    colour = colour_of_split(name)
    return (
        f'<path d="{"".join(points)}" fill="{colour}" fill-opacity="0.22" stroke="{colour}" stroke-width="1.5">'
        f"<title>{escape(name)}</title></path>"
    )


def _anchor(at: int, number: int) -> str:
    return "start" if at == 0 else "end" if at == number - 1 else "middle"


def _number(value: float) -> str:
    return f"{value:g}" if value >= 1 else f"1/{1 / value:g}"
