"""Boxes are drawn where they are and nothing else changes; labels stay in the picture and apart from each other."""

import numpy as np
import pytest

from detkit.ops.drawing import PALETTE, colour_of, draw_detections, grid, side_by_side

GREY = 128
NAMES = ("cat", "dog")
NO_BOXES, NO_LABELS = np.zeros((0, 4)), np.zeros(0, dtype=np.int64)


def a_picture(height: int = 200, width: int = 300) -> np.ndarray:
    return np.full((height, width, 3), GREY, dtype=np.uint8)


def changed(picture: np.ndarray) -> np.ndarray:
    return (picture != GREY).any(axis=2)


def draw(boxes: list[list[float]], labels: list[int], scores: list[float] | None = None, **size: int) -> np.ndarray:
    return draw_detections(
        a_picture(**size), np.array(boxes), np.array(labels), None if scores is None else np.array(scores), NAMES
    )


def test_lines_lie_on_the_borders_of_the_box() -> None:
    """A box covers the pixels x1 to x2 - 1; at this size a line is one pixel wide."""
    picture = draw([[50, 60, 120, 160]], [1])
    border = [picture[100, 50], picture[100, 119], picture[159, 80], picture[60, 118]]
    assert all(tuple(pixel.tolist()) == colour_of(1) for pixel in border)
    assert not changed(picture)[61:159, 51:119].any(), "the inside is not painted"


def test_only_box_and_label_change() -> None:
    touched = changed(draw([[50, 60, 120, 160]], [0], [0.5]))
    touched[60:160, 50:120] = False
    rows, columns = touched.nonzero()
    assert rows.max() == 59, "the label stands right above the box"
    assert (rows.min(), columns.min()) > (40, 49)
    assert columns.max() < 110


def test_the_image_itself_stays() -> None:
    image = a_picture()
    draw_detections(image, np.array([[10.0, 10, 90, 90]]), np.array([0]), None, NAMES)
    assert not changed(image).any()


def test_nothing_to_draw() -> None:
    assert not changed(draw_detections(a_picture(), NO_BOXES, NO_LABELS, NO_LABELS, NAMES)).any()


@pytest.mark.parametrize(
    "box",
    [[0, 0, 20, 20], [290, 0, 300, 10], [280, 190, 300, 200], [-50, -50, 350, 250], [400, 400, 1e9, 1e9], [5, 5, 5, 5]],
    ids=["top left", "top right", "bottom right", "around", "outside", "a point"],
)
def test_labels_stay_in_the_picture(box: list[float]) -> None:
    """As much plate is seen as that of a label in the middle."""
    plate = (draw([[100, 100, 100, 100]], [0], [0.5]) == colour_of(0)).all(axis=2).sum()
    assert (draw([box], [0], [0.5]) == colour_of(0)).all(axis=2).sum() >= plate - 1


def test_labels_larger_than_the_picture_are_cut() -> None:
    picture = draw([[0, 0, 4, 4]], [0], [0.5], height=5, width=6)
    assert changed(picture).sum() == 5 * 6, "the plate covers all of it"
    sheet = side_by_side(a_picture(5, 6), a_picture(5, 6))
    assert (~changed(sheet[-5:])).sum(axis=0).tolist() == [5] * 6 + [0] * 6 + [5] * 6, "the captions are as narrow"


def test_labels_do_not_cover_each_other() -> None:
    """Two detections of one box: both labels are whole."""
    one = (draw([[100, 60, 180, 160]], [0], [0.9]) == colour_of(0)).all(axis=2).sum()
    both = draw([[100, 60, 180, 160], [100, 60, 180, 160]], [0, 0], [0.9, 0.8])
    border = 2 * (80 + 100) - 4
    assert (both == colour_of(0)).all(axis=2).sum() > 2 * (one - border) * 0.8 + border


def test_the_best_detection_is_on_top() -> None:
    boxes = [[100.0, 60, 180, 160]] * 2
    assert draw(boxes, [0, 1], [0.2, 0.9])[100, 100].tolist() == list(colour_of(1))
    assert draw(boxes, [0, 1], [0.9, 0.2])[100, 100].tolist() == list(colour_of(0))


def test_lines_and_letters_grow_with_the_image() -> None:
    small, large = (changed(draw([[50, 60, 120, 160]], [0], height=h, width=300)) for h in (200, 200))
    assert (small == large).all()
    tall = changed(draw([[500, 600, 1200, 1600]], [0], height=2000, width=3000))
    assert tall[1000, 490:510].sum() == pytest.approx(8, abs=1)  # a line
    assert tall[:590].any(axis=1).sum() > 30  # the label's height


def test_small_images_are_enlarged_on_request() -> None:
    box, label = np.array([[50.0, 60, 120, 160]]), np.array([1])
    picture = draw_detections(a_picture(), box, label, None, NAMES, min_side_px=401)
    assert picture.shape == (600, 900, 3)
    assert picture[300, 150].tolist() == picture[479, 300].tolist() == list(colour_of(1))
    same = draw_detections(a_picture(), box, label, None, NAMES, min_side_px=200)
    assert (same == draw_detections(a_picture(), box, label, None, NAMES)).all()


def test_letters_that_the_font_lacks() -> None:
    """Accents fall away; a name with no letter left is called by its number."""
    box, label = np.array([[50.0, 60, 120, 160]]), np.array([0])
    plain, accent, other, number = (
        draw_detections(a_picture(), box, label, None, [name]) for name in ("Ganse", "Gänse", "猫", "class 0")
    )
    assert (plain == accent).all()
    assert (other == number).all()


def test_every_colour_is_its_own() -> None:
    assert len(set(PALETTE)) == len(PALETTE)
    assert colour_of(len(PALETTE)) == colour_of(0)


def test_truth_beside_prediction() -> None:
    left, right = a_picture(), np.zeros_like(a_picture())
    sheet = side_by_side(left, right)
    assert (sheet[-200:, :300] == left).all()
    assert (sheet[-200:, -300:] == right).all()
    caption = len(sheet) - 200
    assert 5 < caption < 40
    assert (sheet[:caption] < 100).any(), "there is text in the line above"


def test_wide_pictures_stand_below_each_other() -> None:
    wide = a_picture(100, 300)
    sheet = side_by_side(wide, np.zeros_like(wide))
    assert (sheet[-100:] == 0).all() and (~changed(sheet)).all(axis=1).sum() == 100


def test_grid_puts_smaller_images_in_the_middle() -> None:
    sheet = grid([a_picture(10, 20), a_picture(30, 40), a_picture(30, 40)], columns=2)
    assert sheet.shape == (30 + 6 + 30, 40 + 6 + 40, 3)
    cells = changed(sheet) == 0
    assert cells[10:20, 10:30].all()
    assert cells[:30, 46:].all()
    assert cells[36:, :40].all()
    assert cells.sum() == 10 * 20 + 2 * 30 * 40


def test_grid_is_no_wider_than_its_images() -> None:
    np.testing.assert_array_equal(grid([a_picture()], columns=4), a_picture())


def test_refuses_what_is_no_rgb_image() -> None:
    for image, got in ((a_picture()[..., 0], r"\(200, 300\) uint8"), (a_picture() / 255, r"\(200, 300, 3\) float64")):
        with pytest.raises(ValueError, match=rf"\(H, W, 3\) uint8; got {got}"):
            draw_detections(image, NO_BOXES, NO_LABELS, None, NAMES)


def test_refuses_boxes_without_label_or_score() -> None:
    with pytest.raises(ValueError, match="got 1 boxes, 2 labels"):
        draw([[1, 2, 3, 4]], [0, 1])
    with pytest.raises(ValueError, match="got 1 boxes, 1 labels and 0 scores"):
        draw([[1, 2, 3, 4]], [0], [])


def test_refuses_boxes_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match=r"finite; got \[1\.0, 2\.0, nan, 4\.0\]"):
        draw([[1, 2, float("nan"), 4]], [0])


@pytest.mark.parametrize("label", [-1, 2])
def test_refuses_labels_without_name(label: int) -> None:
    with pytest.raises(ValueError, match=rf"\[0, 2\), one for each class name; got {label}"):
        draw([[1, 2, 3, 4]], [label])


def test_refuses_pictures_of_two_sizes() -> None:
    with pytest.raises(ValueError, match=r"got \(200, 300, 3\) and \(100, 300, 3\)"):
        side_by_side(a_picture(), a_picture(100))


def test_refuses_an_empty_grid() -> None:
    with pytest.raises(ValueError, match="got 0 images and columns=2"):
        grid([], columns=2)
    with pytest.raises(ValueError, match="got 1 images and columns=0"):
        grid([a_picture()], columns=0)
