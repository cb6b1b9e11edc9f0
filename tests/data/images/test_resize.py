"""Both ways to the size of the input, against what published detectors were trained on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detkit.data.images.decode import decode_image
from detkit.data.images.resize import fitted_hw, fitting_scale_xy, letterbox, resize_antialiased, squash, to_input

SIZES_HW = [(640, 640), (320, 320), (480, 480), (800, 800), (128, 1024)]


def by_pillow(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((size_hw[1], size_hw[0]), Image.Resampling.BILINEAR))


def random_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("folder", ["bccd/train", "aerial_cars/train", "coco_mini/val"])
def test_squash_is_pillow_to_a_grey_level(shared_data: Path, folder: str) -> None:
    image = decode_image(min((shared_data / folder).glob("*.jpg")))
    for size_hw in SIZES_HW:
        resized, scale_xy = squash(image, size_hw)
        difference = np.abs(resized.astype(int) - by_pillow(image, size_hw))
        assert resized.shape == (*size_hw, 3) and resized.flags.c_contiguous
        assert difference.max() <= 1 and difference.mean() < 0.3
        assert scale_xy == (size_hw[1] / image.shape[1], size_hw[0] / image.shape[0])


@pytest.mark.parametrize("source_hw", [(1, 1), (1, 7), (3, 500), (97, 41)])
@pytest.mark.parametrize("size_hw", [(32, 64), (1, 1), (200, 20)])
def test_any_size_is_resized_as_by_pillow(source_hw: tuple[int, int], size_hw: tuple[int, int]) -> None:
    image = random_image(*source_hw)
    difference = np.abs(resize_antialiased(image, size_hw).astype(int) - by_pillow(image, size_hw))
    assert difference.max() <= 1


def test_a_part_of_an_image_that_nobody_may_write_to() -> None:
    """As the cache keeps them: no warning, no change."""
    image = random_image(90, 120)
    image.flags.writeable = False
    part = image[10:70, 20:110]
    difference = np.abs(resize_antialiased(part, (32, 64)).astype(int) - by_pillow(part, (32, 64)))
    assert difference.max() <= 1
    np.testing.assert_array_equal(image, random_image(90, 120))


def test_squash_to_its_own_size_is_a_copy() -> None:
    image = random_image(32, 64)
    same, scale_xy = squash(image, (32, 64))
    np.testing.assert_array_equal(same, image)
    assert scale_xy == (1, 1) and not np.shares_memory(same, image)


def test_letterbox_is_the_reference_bit_for_bit(shared_reference: Path) -> None:
    record = torch.load(shared_reference / "yolox_tiny.pt", weights_only=True)["letterbox"]
    assert len(record["cases"]) == 4
    for case in record["cases"]:
        image = case["image_hwc"].numpy()
        canvas, scale_xy = letterbox(image, tuple(case["size"]))
        np.testing.assert_array_equal(canvas.transpose(2, 0, 1), case["padded_chw"].numpy())
        np.testing.assert_allclose(scale_xy, case["ratio"], atol=1 / min(image.shape[:2]))


def test_letterbox_of_a_thread() -> None:
    canvas, scale_xy = letterbox(np.zeros((1, 5000, 3), np.uint8), (64, 64))
    assert scale_xy == (64 / 5000, 1.0)
    assert not canvas[0].any() and (canvas[1:] == 114).all()


def test_which_one_is_said_by_a_word() -> None:
    image = random_image(20, 30)
    for found, expected in (
        (to_input(image, (64, 64), "letterbox"), letterbox(image, (64, 64))),
        (to_input(image, (64, 64), "squash"), squash(image, (64, 64))),
    ):
        np.testing.assert_array_equal(found[0], expected[0])
        assert found[1] == expected[1]


def test_fitted_by_hand() -> None:
    assert fitted_hw((480, 640), (320, 320), "letterbox") == (240, 320)
    assert fitted_hw((480, 640), (320, 320), "squash") == (320, 320)
    assert fitted_hw((1, 5000), (64, 64), "letterbox") == (1, 64)
    assert fitting_scale_xy((480, 640), (320, 320), "letterbox") == (0.5, 0.5)
    assert fitting_scale_xy((480, 640), (320, 320), "squash") == (0.5, 320 / 480)
