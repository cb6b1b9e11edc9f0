"""Images and boxes through the same change: against references, drawn rectangles and their own promises."""

import colorsys
import math

import albumentations as A
import cv2
import numpy as np
import pytest

from detkit.data.augment.transforms import (
    Sample,
    UserTransforms,
    affine_matrix,
    change_colour,
    compose,
    flip,
    is_visible,
    keep_visible,
    move_boxes,
    paste,
    reduction_for,
)
from detkit.data.images.resize import blank, squash
from detkit.errors import DataError


def make_sample(boxes: list[list[float]], image: np.ndarray | None = None, crowd: list[bool] | None = None) -> Sample:
    return Sample(
        blank((60, 100)) if image is None else image,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.arange(len(boxes), dtype=np.int64),
        np.array(crowd or [False] * len(boxes), np.bool),
    )


def smooth_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 5)


def find_rectangle(image: np.ndarray) -> np.ndarray:
    """The box around what is brighter than half."""
    rows, columns = np.nonzero(image[..., 0] > 127)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32)


def draw_pair(rng: np.random.Generator, low: float, high: float) -> tuple[float, float]:
    first, second = rng.uniform(low, high, 2).tolist()
    return first, second


def test_affine_by_hand() -> None:
    """Scaled by 2 and 3 to (2, 6), turned a quarter clockwise on the screen to (-6, 2), then shifted."""
    matrix = affine_matrix((2, 3), (10, 20), degrees=90)
    np.testing.assert_allclose(matrix @ [1, 2, 1], [4, 22])
    leaning = affine_matrix((1, 1), shear_xy=(45, 0))
    np.testing.assert_allclose(leaning @ [1, 2, 1], [3, 2])


def test_compose_does_the_inner_first() -> None:
    outer = affine_matrix((2, 1.5), (3, 4), 30, (5, -7))
    inner = affine_matrix((0.3, 0.6), (-1, 8), -20, (2, 1))
    point = np.array([5.0, 6.0, 1.0])
    np.testing.assert_allclose(compose(outer, inner) @ point, outer @ [*(inner @ point), 1])


@pytest.mark.parametrize("seed", range(5))
def test_boxes_move_as_their_corners_do(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner, side = rng.uniform(0, 500, (20, 2)), rng.uniform(1, 200, (20, 2))
    boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
    matrix = affine_matrix(
        draw_pair(rng, 0.1, 2), draw_pair(rng, -90, 90), rng.uniform(-180, 180), draw_pair(rng, -9, 9)
    )
    expected = []
    for x1, y1, x2, y2 in boxes.tolist():
        corners = np.array([matrix @ [x, y, 1] for x in (x1, x2) for y in (y1, y2)])
        expected.append([*corners.min(axis=0), *corners.max(axis=0)])
    moved = move_boxes(boxes, matrix)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-3)


def test_upright_boxes_come_back() -> None:
    boxes = np.array([[3, 4, 50, 60], [0, 0, 1, 1]], np.float32)
    there = affine_matrix((0.7, 1.3), (11, -5))
    back = affine_matrix((1 / 0.7, 1 / 1.3), (-11 / 0.7, 5 / 1.3))
    np.testing.assert_allclose(move_boxes(move_boxes(boxes, there), back), boxes, atol=1e-4)


@pytest.mark.parametrize("degrees", [0, 17], ids=["resized", "warped"])
@pytest.mark.parametrize("seed", range(12))
def test_box_fits_the_drawn_rectangle(seed: int, degrees: float) -> None:
    """A bright rectangle, pasted, is found where its box says, to less than a pixel of the canvas or the source."""
    rng = np.random.default_rng(seed)
    source = np.zeros((240, 320, 3), np.uint8)
    x1, y1 = rng.integers(20, 140), rng.integers(20, 100)
    x2, y2 = x1 + rng.integers(40, 120), y1 + rng.integers(40, 100)
    source[y1:y2, x1:x2] = 255
    side = 640 if degrees else 256  # a turned box that is cut is not the box of the cut rectangle
    canvas = np.zeros((side, side, 3), np.uint8)
    scale = rng.uniform(0.4, 1.6)
    middle = affine_matrix((1, 1), (-160, -120))
    matrix = compose(affine_matrix((scale, scale), draw_pair(rng, 0.35 * side, 0.6 * side), degrees), middle)
    drawn = paste(canvas, source, matrix)
    box = move_boxes(np.array([[x1, y1, x2, y2]], np.float32), drawn)[0]
    visible = np.clip(box, 0, side)
    np.testing.assert_allclose(find_rectangle(canvas), visible, atol=1.0)
    np.testing.assert_allclose(box, move_boxes(np.array([[x1, y1, x2, y2]]), matrix)[0], atol=1.5 * max(1, scale))


@pytest.mark.parametrize("seed", range(8))
def test_upright_paste_agrees_with_a_warp(seed: int) -> None:
    """Slow reference: the matrix that was drawn, warped over the whole canvas."""
    rng = np.random.default_rng(seed)
    source = smooth_image(150, 200, seed)
    matrix = affine_matrix(draw_pair(rng, 0.6, 2.5), draw_pair(rng, -120, 120))
    canvas = blank((160, 192))
    drawn = paste(canvas, source, matrix)
    centres = drawn.copy()
    centres[:, 2] += drawn[:, :2] @ [0.5, 0.5] - 0.5
    warped = cv2.warpAffine(source, centres, (192, 160), borderMode=cv2.BORDER_REPLICATE)
    left, top, right, bottom = np.clip(move_boxes(np.array([[0, 0, 200, 150]]), drawn)[0].round().astype(int), 0, 192)
    difference = cv2.absdiff(canvas, warped)[top : min(bottom, 160), left:right]
    assert difference.size > 0 and difference.max() <= 3
    canvas[top : min(bottom, 160), left:right] = 114
    assert (canvas == 114).all()  # nothing was drawn outside


def test_antialiased_paste_is_the_squash() -> None:
    """The same pixels, as far as a whole image fills a whole canvas; and where it is not seen, nothing is drawn."""
    source = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    canvas = blank((32, 64))
    drawn = paste(canvas, source, affine_matrix((64 / 120, 32 / 90)), antialias=True)
    expected, scale_xy = squash(source, (32, 64))
    np.testing.assert_array_equal(canvas, expected)
    np.testing.assert_allclose(drawn, affine_matrix(scale_xy))
    part = blank((32, 64))
    paste(part, source, affine_matrix((0.1, 0.1), (20, 10)), antialias=True)
    np.testing.assert_array_equal(part[10:19, 20:32], squash(source, (9, 12))[0])
    part[10:19, 20:32] = 114
    assert (part == 114).all()


def test_warp_samples_where_the_matrix_says() -> None:
    """A ramp of grey values, turned: every pixel has the value at its own place in the source."""
    source = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 200, axis=0).repeat(3, axis=2)
    matrix = affine_matrix((1.2, 1.2), (40, 30), 20)
    canvas = blank((320, 320))
    paste(canvas, source, matrix)
    y, x = np.mgrid[0:320, 0:320] + 0.5
    u, v = np.einsum("ij,jyx->iyx", np.linalg.inv(matrix[:, :2]), np.stack([x - matrix[0, 2], y - matrix[1, 2]]))
    inside = (u > 1) & (u < 199) & (v > 1) & (v < 199)
    assert inside.sum() > 30_000
    np.testing.assert_allclose(canvas[..., 0][inside], u[inside] - 0.5, atol=0.51)


@pytest.mark.parametrize("degrees", [0, 10])
@pytest.mark.parametrize("shift_xy", [(-500, 0), (400, 0), (0, 400), (0, -500)])
def test_nothing_is_drawn_off_the_canvas(degrees: float, shift_xy: tuple[float, float]) -> None:
    canvas = blank((64, 64))
    matrix = affine_matrix((1, 1), shift_xy, degrees)
    assert not is_visible(matrix, (100, 100), (64, 64))
    paste(canvas, smooth_image(100, 100), matrix)
    assert (canvas == 114).all()


@pytest.mark.parametrize(
    ("shift_xy", "visible"), [((-99, 0), True), ((-100, 0), False), ((63, 63), True), ((0, 64), False)]
)
def test_visible_up_to_the_last_pixel(shift_xy: tuple[float, float], visible: bool) -> None:
    assert is_visible(affine_matrix((1, 1), shift_xy), (100, 100), (64, 64)) is visible


@pytest.mark.parametrize(
    ("scale", "reduce"), [(2.0, 1), (0.51, 1), (0.5, 2), (0.26, 2), (0.25, 4), (0.125, 8), (0.01, 8)]
)
def test_never_decoded_smaller_than_drawn(scale: float, reduce: int) -> None:
    assert reduction_for(affine_matrix((scale, scale))) == reduce
    assert reduction_for(affine_matrix((scale / 4, scale), degrees=0)) == reduce  # the larger factor decides


def test_which_boxes_stay() -> None:
    boxes = [
        [-50, 0, 50, 10],  # half of it inside
        [-91, 0, 9, 10],  # 9 of 100
        [-90, 0, 10, 10],  # 10 of 100: just enough
        [10, 10, 11.9, 40],  # too narrow
        [10, 10, 12, 12],
        [-91, 0, 9, 10],  # crowd
        [100, 0, 120, 10],  # crowd, outside
    ]
    crowd = [False] * 5 + [True] * 2
    kept = keep_visible(make_sample(boxes, crowd=crowd), min_box_px=2, min_visible_frac=0.1)
    assert kept.labels.tolist() == [0, 2, 4, 5]
    assert kept.boxes.tolist() == [[0, 0, 50, 10], [0, 0, 10, 10], [10, 10, 12, 12], [0, 0, 9, 10]]
    assert kept.crowd.tolist() == [False, False, False, True]


def test_no_boxes_stay_no_boxes() -> None:
    kept = keep_visible(make_sample([]), min_box_px=2, min_visible_frac=0.1)
    assert kept.boxes.shape == (0, 4) and kept.boxes.dtype == np.float32


@pytest.mark.parametrize(("horizontal", "vertical"), [(True, False), (False, True), (True, True), (False, False)])
def test_flip(horizontal: bool, vertical: bool) -> None:
    image = smooth_image(60, 100)
    sample = make_sample([[10, 5, 30, 25]], image)
    flipped = flip(sample, horizontal, vertical)
    expected = image[:: -1 if vertical else 1, :: -1 if horizontal else 1]
    np.testing.assert_array_equal(flipped.image, expected)
    x1, x2 = (70, 90) if horizontal else (10, 30)
    y1, y2 = (35, 55) if vertical else (5, 25)
    assert flipped.boxes.tolist() == [[x1, y1, x2, y2]]
    twice = flip(flipped, horizontal, vertical)
    np.testing.assert_array_equal(twice.image, image)
    assert twice.boxes.tolist() == sample.boxes.tolist()


def one_pixel(*rgb: int) -> np.ndarray:
    return np.array([[rgb]], np.uint8)


def test_colour_unchanged() -> None:
    image = smooth_image(20, 20)
    np.testing.assert_array_equal(change_colour(image, 0, 1, 1), image)


@pytest.mark.parametrize("grey", [0, 77, 255])
def test_hue_and_saturation_leave_grey(grey: int) -> None:
    assert change_colour(one_pixel(grey, grey, grey), 90, 1.7, 1).tolist() == [[[grey] * 3]]


def test_saturation_zero_is_luma() -> None:
    """0.213 * 200 + 0.715 * 100 + 0.072 * 50 = 117.7"""
    assert change_colour(one_pixel(200, 100, 50), 0, 0, 1).tolist() == [[[118, 118, 118]]]


@pytest.mark.parametrize("degrees", [-20, -5, 5, 20])
def test_hue_turns_as_in_hsv(degrees: float) -> None:
    for rgb in ((180, 90, 80), (90, 160, 100), (80, 100, 170)):
        changed = change_colour(one_pixel(*rgb), degrees, 1, 1)[0, 0].tolist()
        turned = colorsys.rgb_to_hsv(*changed)[0] - colorsys.rgb_to_hsv(*rgb)[0]
        assert math.remainder(turned, 1) * 360 == pytest.approx(degrees, abs=abs(degrees) / 2)


def test_darker_is_linear_and_brighter_leaves_white() -> None:
    assert change_colour(one_pixel(200, 100, 50), 0, 1, 0.5).tolist() == [[[100, 50, 25]]]
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    brighter = change_colour(ramp, 0, 1, 1.4)[0, :, 0].astype(int)
    assert brighter[0] == 0 and brighter[255] == 255
    assert (np.diff(brighter) >= 0).all() and (brighter >= np.arange(256)).all()
    assert brighter[10] == 14  # 255 * (1 - (245 / 255) ** 1.4): 1.4 times as bright


def test_user_transforms_move_boxes_and_keep_labels() -> None:
    image = smooth_image(60, 100)
    sample = make_sample([[10, 5, 30, 25], [50, 5, 60, 25]], image, crowd=[False, True])
    sample = sample._replace(labels=np.array([2**24 + 1, 7]))  # float32 would make 16777216 of the first
    flipped = UserTransforms([A.HorizontalFlip(p=1)])(sample, np.random.default_rng(0))
    np.testing.assert_array_equal(flipped.image, image[:, ::-1])
    np.testing.assert_allclose(flipped.boxes, [[70, 5, 90, 25], [40, 5, 50, 25]], atol=1e-4)
    assert flipped.labels.tolist() == [2**24 + 1, 7] and flipped.crowd.tolist() == [False, True]
    assert flipped.boxes.dtype == np.float32 and flipped.labels.dtype == np.int64


def test_user_transforms_draw_from_the_generator_alone() -> None:
    transforms = UserTransforms([A.Affine(rotate=(-30, 30), p=1), A.GaussNoise(p=1)])
    sample = make_sample([[10, 5, 30, 25]], smooth_image(60, 100))
    first, other, again = (transforms(sample, np.random.default_rng(seed)) for seed in (1, 2, 1))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    assert (first.image != other.image).any() and (first.boxes != other.boxes).any()


def test_user_transforms_without_boxes() -> None:
    sample = UserTransforms([A.HorizontalFlip(p=1)])(make_sample([]), np.random.default_rng(0))
    assert sample.boxes.shape == (0, 4) and sample.labels.shape == (0,)


def test_user_transforms_must_keep_the_size() -> None:
    transforms = UserTransforms([A.Resize(32, 48)])
    with pytest.raises(DataError, match=r"made uint8 \(32, 48, 3\) of uint8 \(60, 100, 3\)"):
        transforms(make_sample([]), np.random.default_rng(0))
