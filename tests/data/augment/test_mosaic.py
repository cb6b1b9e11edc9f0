"""Placing of images on the plane, by hand and against four warps of whole canvases."""

import cv2
import numpy as np
import pytest

from detkit.data.augment.mosaic import mixup, place_mosaic, place_single
from detkit.data.augment.transforms import Sample, affine_matrix, compose, move_boxes, paste
from detkit.data.images.resize import blank


def corners(matrix: np.ndarray, source_hw: tuple[int, int]) -> list[float]:
    height, width = source_hw
    return move_boxes(np.array([[0.0, 0.0, width, height]]), matrix)[0].tolist()


def test_single_is_fitted_around_the_origin() -> None:
    assert corners(place_single((480, 640), (320, 320)), (480, 640)) == [-160, -120, 160, 120]
    assert corners(place_single((100, 50), (200, 200)), (100, 50)) == [-50, -100, 50, 100]


def test_squashed_images_fill_the_canvas() -> None:
    assert corners(place_single((480, 640), (320, 256), "squash"), (480, 640)) == [-128, -160, 128, 160]
    matrices = place_mosaic([(480, 640)] * 4, (320, 256), (3.0, -5.0), "squash")
    assert corners(matrices[0], (480, 640)) == [3 - 256, -5 - 320, 3, -5]
    assert corners(matrices[3], (480, 640)) == [3, -5, 3 + 256, -5 + 320]


def test_four_images_touch_in_the_point() -> None:
    sources_hw = [(480, 640), (100, 100), (640, 320), (10, 20)]
    matrices = place_mosaic(sources_hw, (320, 320), meeting_xy=(12.0, -7.0))
    found = [corners(matrix, size_hw) for matrix, size_hw in zip(matrices, sources_hw, strict=True)]
    assert found == [
        [12 - 320, -7 - 240, 12, -7],
        [12, -7 - 320, 12 + 320, -7],
        [12 - 160, -7, 12, -7 + 320],
        [12, -7, 12 + 320, -7 + 160],
    ]


def draw_pair(rng: np.random.Generator, low: float, high: float) -> tuple[float, float]:
    first, second = rng.uniform(low, high, 2).tolist()
    return first, second


@pytest.mark.parametrize("degrees", [0.0, 8.0])
@pytest.mark.parametrize("seed", range(4))
def test_mosaic_agrees_with_four_warps(seed: int, degrees: float) -> None:
    """Slow reference: each image warped over a whole canvas, and put where a warped mask says that it is."""
    rng = np.random.default_rng(seed)
    sizes_hw = [(height, width) for height, width in rng.integers(60, 140, (4, 2)).tolist()]
    sources = [
        cv2.GaussianBlur(rng.integers(0, 256, (*size_hw, 3), np.uint8), (0, 0), 6, borderType=cv2.BORDER_REPLICATE)
        for size_hw in sizes_hw
    ]
    scale = rng.uniform(0.8, 1.5)
    to_canvas = affine_matrix((scale, scale), draw_pair(rng, 60, 100), degrees)
    canvas, expected, inside = blank((160, 160)), blank((160, 160)), np.zeros((160, 160), np.bool)
    for source, placement in zip(sources, place_mosaic(sizes_hw, (128, 128), draw_pair(rng, -40, 40)), strict=True):
        drawn = paste(canvas, source, compose(to_canvas, placement))
        centres = drawn.copy()
        centres[:, 2] += drawn[:, :2] @ [0.5, 0.5] - 0.5
        warped = cv2.warpAffine(source, centres, (160, 160), borderMode=cv2.BORDER_REPLICATE)
        mask = cv2.warpAffine(np.full(source.shape[:2], 255, np.uint8), centres, (160, 160)) == 255
        core = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1).astype(np.bool)
        expected[core] = warped[core]
        inside |= core
    assert inside.mean() > 0.4
    assert cv2.absdiff(canvas, expected)[inside].max() <= 3


def test_no_gap_between_upright_images() -> None:
    white = np.full((90, 120, 3), 255, np.uint8)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scale = rng.uniform(1, 1.5)
        canvas = blank((96, 96))
        to_canvas = affine_matrix((scale, scale), draw_pair(rng, 40, 56))
        for placement in place_mosaic([(90, 120)] * 4, (128, 128), draw_pair(rng, -9, 9)):
            paste(canvas, white, compose(to_canvas, placement))
        assert (canvas == 255).all()


def test_mixup_is_the_mean_with_all_boxes() -> None:
    first = Sample(np.full((2, 2, 3), 100, np.uint8), np.ones((1, 4), np.float32), np.array([3]), np.array([False]))
    second = Sample(
        np.full((2, 2, 3), 50, np.uint8), np.zeros((2, 4), np.float32), np.array([1, 2]), np.array([True, False])
    )
    mixed = mixup(first, second)
    assert (mixed.image == 75).all() and mixed.image.dtype == np.uint8
    assert mixed.boxes.tolist() == [[1] * 4, [0] * 4, [0] * 4]
    assert mixed.labels.tolist() == [3, 1, 2] and mixed.crowd.tolist() == [False, True, False]
