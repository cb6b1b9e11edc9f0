"""Zoom-out and IoU crop: their promises, loops for their rules, and torchvision's distributions."""

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes

from detkit.data.augment.transforms import Sample, move_boxes
from detkit.data.augment.zoom_crop import iou_crop, keep_centred, window_matrix, zoom_out

SOURCE_HW = (300, 400)
WHOLE = np.array([0, 0, 400, 300])
BOXES = np.array([[20, 30, 120, 140], [200, 60, 390, 280], [150, 150, 170, 180]], np.float32)
DRAWS = 3000


def slow_iou(first: list[float], second: list[float]) -> float:
    sides = [min(first[2 + axis], second[2 + axis]) - max(first[axis], second[axis]) for axis in (0, 1)]
    common = max(sides[0], 0) * max(sides[1], 0)
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (first, second)]
    return common / (sum(areas) - common)


def best_iou(window: np.ndarray, boxes: np.ndarray) -> float:
    """Of the boxes whose centre lies inside; -1 without any."""
    x1, y1, x2, y2 = window.tolist()
    inside = [box for box in boxes.tolist() if x1 < (box[0] + box[2]) / 2 < x2 and y1 < (box[1] + box[3]) / 2 < y2]
    return max((slow_iou(window.tolist(), box) for box in inside), default=-1.0)


def quantiles(values: np.ndarray) -> np.ndarray:
    return np.quantile(values, [0.1, 0.3, 0.5, 0.7, 0.9], axis=0)


def crops(boxes: np.ndarray, window: np.ndarray = WHOLE, draws: int = DRAWS) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([iou_crop(rng, window, boxes) for _ in range(draws)])


def torchvision_crops(boxes: np.ndarray, draws: int) -> np.ndarray:
    """(draws, 4) windows; which option was drawn shows in them alone."""
    transform, (height, width) = v2.RandomIoUCrop(), SOURCE_HW
    kind: dict[str, Any] = {"format": "XYXY", "canvas_size": SOURCE_HW}  # pyright knows no constructor with these
    given = BoundingBoxes(torch.from_numpy(boxes), **kind)
    image = torch.zeros(3, height, width)
    windows = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(draws):
            drawn = transform.make_params([image, given])
            left, top = drawn.get("left", 0), drawn.get("top", 0)
            windows.append([left, top, left + drawn.get("width", width), top + drawn.get("height", height)])
    return np.array(windows)


@pytest.mark.parametrize("boxes", [BOXES, BOXES[1:2]], ids=["three", "one"])
def test_crops_are_distributed_as_torchvisions(boxes: np.ndarray) -> None:
    ours, theirs = crops(boxes), torchvision_crops(boxes, 600)
    for name, windows in (("ours", ours), ("theirs", theirs)):
        assert ((windows[:, :2] >= 0) & (windows[:, 2:] <= SOURCE_HW[::-1])).all(), name
    whole = [(windows == WHOLE).all(axis=1) for windows in (ours, theirs)]
    assert whole[0].mean() == pytest.approx(whole[1].mean(), abs=0.06) and whole[0].mean() > 0.1
    cut = [windows[~same] for windows, same in zip((ours, theirs), whole, strict=True)]
    sides = [windows[:, 2:] - windows[:, :2] for windows in cut]
    np.testing.assert_allclose(quantiles(sides[0]), quantiles(sides[1]), atol=0.05 * 400)
    np.testing.assert_allclose(quantiles(cut[0]), quantiles(cut[1]), atol=0.06 * 400)
    overlaps = [quantiles(np.array([best_iou(window, boxes) for window in windows])) for windows in cut]
    np.testing.assert_allclose(overlaps[0], overlaps[1], atol=0.05)


@pytest.mark.parametrize("least_iou", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_crop_keeps_what_was_asked_for(monkeypatch: pytest.MonkeyPatch, least_iou: float) -> None:
    monkeypatch.setattr("detkit.data.augment.zoom_crop.LEAST_IOUS", (least_iou, 1.0))
    large = np.array([[10, 10, 380, 290], [0, 0, 4, 4]], np.float32)
    found = crops(large, draws=200)
    cut = found[(found != WHOLE).any(axis=1)]
    assert len(cut) > 50
    overlaps = [best_iou(window, large) for window in cut]
    assert min(overlaps) >= least_iou - 1e-6
    sides = cut[:, 2:] - cut[:, :2]
    aspects = sides[:, 0] / sides[:, 1]
    assert aspects.min() >= 0.5 and aspects.max() <= 2
    assert (sides >= np.array([119, 89])).all() and (sides <= [400, 300]).all()  # 0.3 of the sides, rounded down


def test_every_option_is_used() -> None:
    """Of a box as large as the image a crop has any overlap that is asked for; one of seven asks for all of it."""
    overlaps = np.array([best_iou(window, WHOLE[None].astype(np.float32)) for window in crops(WHOLE[None] * 1.0)])
    assert np.mean(overlaps == 1) == pytest.approx(1 / 7, abs=0.03)
    counts, _ = np.histogram(overlaps, [0.09, 0.3, 0.5, 0.7, 0.9, 1])
    assert counts[:4].min() > 0.05 * DRAWS and np.sum((overlaps > 0.9) & (overlaps < 1)) > 0.05 * DRAWS


def test_a_crop_of_a_larger_window() -> None:
    """After a zoom-out the crop may show more background than image, but a box's centre is in it."""
    window = np.array([-300, -100, 900, 500])
    found = crops(BOXES, window, draws=300)
    assert ((found[:, :2] >= window[:2]) & (found[:, 2:] <= window[2:])).all()
    assert (found[:, 0] < 0).any() and (found[:, 2] > 400).any()
    assert all(best_iou(each, BOXES) >= 0 for each in found)


def test_without_boxes_nothing_is_cut() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        np.testing.assert_array_equal(iou_crop(rng, WHOLE, np.zeros((0, 4), np.float32)), WHOLE)


@pytest.mark.parametrize("source_hw", [(1, 1), (1, 9), (3, 2), (2, 700)], ids=str)
def test_tiny_and_thin_images(source_hw: tuple[int, int]) -> None:
    """Always a window with pixels in it, though no crop of 2 x 700 has a permitted shape."""
    height, width = source_hw
    rng = np.random.default_rng(0)
    for _ in range(50):
        window = zoom_out(rng, source_hw)
        x1, y1, x2, y2 = iou_crop(rng, window, np.array([[0, 0, width, height]], np.float32)).tolist()
        assert x1 < x2 and y1 < y2
    assert (crops(np.array([[0, 0, 700, 2]], np.float32), np.array([0, 0, 700, 2]), 20) == [0, 0, 700, 2]).all()


def test_a_box_without_area_ends_the_search() -> None:
    """Its IoU is 0 with any crop: only two of the seven options can be met, and the others are drawn again."""
    found = crops(np.array([[50, 50, 50, 50]], np.float32), draws=100)
    assert ((found == WHOLE).all(axis=1) | ((found[:, :2] < 50) & (found[:, 2:] > 50)).all(axis=1)).all()


def test_zoom_out_is_distributed_as_torchvisions() -> None:
    transform, (height, width) = v2.RandomZoomOut(), SOURCE_HW
    theirs = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(DRAWS):
            left, top, right, bottom = transform.make_params([torch.zeros(3, height, width)])["padding"]
            theirs.append([-left, -top, width + right, height + bottom])
    rng = np.random.default_rng(0)
    ours = np.array([zoom_out(rng, SOURCE_HW) for _ in range(DRAWS)])
    assert (ours[:, :2] <= 0).all() and (ours[:, 2:] >= (400, 300)).all()
    sides = ours[:, 2:] - ours[:, :2]
    assert (sides >= (400, 300)).all() and (sides <= (1600, 1200)).all()
    assert np.abs(sides[:, 0] / sides[:, 1] - 4 / 3).max() < 0.01
    np.testing.assert_allclose(quantiles(ours), quantiles(np.array(theirs)), atol=0.05 * 1600)
    places = -ours[:, :2] / np.maximum(sides - (400, 300), 1)
    assert np.abs(np.corrcoef(places.T) - np.eye(2)).max() < 0.1  # along both axes on its own


def test_the_window_fills_the_canvas() -> None:
    window = np.array([-100, 50, 300, 250])
    matrix = window_matrix(window, (100, 400))
    np.testing.assert_allclose(move_boxes(window[None].astype(np.float32), matrix), [[0, 0, 400, 100]])
    np.testing.assert_allclose(move_boxes(np.array([[0, 50, 100, 150]]), matrix), [[100, 0, 200, 50]])


def test_boxes_stay_by_their_centres() -> None:
    boxes = np.array(
        [
            [-4, 10, 8, 20],  # centre at x = 2
            [-10, 10, 8, 20],  # centre left of the image
            [-8, 10, 8, 20],  # centre on the edge
            [95, 50, 104, 69],  # centre at (99.5, 59.5)
            [50, 50, 50, 55],  # no width
            [-90, 10, 5, 20],  # crowd, centre outside
            [-90, 10, 0, 20],  # crowd, outside
        ],
        np.float32,
    )
    crowd = np.array([False] * 5 + [True] * 2)
    kept = keep_centred(Sample(np.zeros((60, 100, 3), np.uint8), boxes, np.arange(7), crowd))
    assert kept.labels.tolist() == [0, 3, 5] and kept.crowd.tolist() == [False, False, True]
    assert kept.boxes.tolist() == [[0, 10, 8, 20], [95, 50, 100, 60], [0, 10, 5, 20]]
