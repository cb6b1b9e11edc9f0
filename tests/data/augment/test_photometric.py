"""Photometric distortion against torchvision's functions, and its draws against torchvision's odds."""

import itertools

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from detkit.data.augment.photometric import Distortion, distort, draw_distortion
from detkit.data.images.decode import decode_image

CHANGES = {
    "brightness": [Distortion(brightness=factor) for factor in (0.875, 1.125, 1.06)],
    "contrast": [Distortion(contrast=factor) for factor in (0.5, 0.8, 1.5)],
    "saturation": [Distortion(saturation=factor) for factor in (0.5, 0.9, 1.5)],
    "hue": [Distortion(hue_turns=turns) for turns in (-0.05, -0.013, 0.02, 0.05, 0.5)],
    "channels": [Distortion(channels=order) for order in itertools.permutations(range(3))],
}
SEVERAL = [
    Distortion(1.1, 1.4, 0.6, 0.04, contrast_first=True, channels=(2, 0, 1)),
    Distortion(0.9, 0.6, 1.4, -0.03, contrast_first=False, channels=(1, 0, 2)),
    Distortion(1.12, 0.7, 1.5, 0.05, contrast_first=False),
]


@pytest.fixture(params=["photo", "noise"])
def image(request: pytest.FixtureRequest) -> np.ndarray:
    """Noise has all colours and clips everywhere; a photo is what it is for."""
    if request.param == "photo":
        return decode_image(min((request.getfixturevalue("shared_data") / "bccd" / "train").glob("*.jpg")))
    return np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)


def by_torchvision(image: np.ndarray, change: Distortion, *, exact: bool = False) -> np.ndarray:
    """Its functions in the order of its RandomPhotometricDistort; exact: in floats, nothing rounded in between."""
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)
    pixels = reference.adjust_brightness(pixels / 255 if exact else pixels, change.brightness)
    if change.contrast_first:
        pixels = reference.adjust_contrast(pixels, change.contrast)
    pixels = reference.adjust_saturation(pixels, change.saturation)
    pixels = reference.adjust_hue(pixels, change.hue_turns)
    if not change.contrast_first:
        pixels = reference.adjust_contrast(pixels, change.contrast)
    pixels = reference.permute_channels(pixels, list(change.channels)).permute(1, 2, 0).numpy()
    return pixels * 255.0 if exact else pixels


@pytest.mark.parametrize("name", CHANGES)
def test_one_change_is_torchvision_to_a_grey_level(image: np.ndarray, name: str) -> None:
    for change in CHANGES[name]:
        difference = np.abs(distort(image, change).astype(int) - by_torchvision(image, change))
        assert difference.max() <= 1, change


@pytest.mark.parametrize("change", SEVERAL)
def test_several_changes_in_torchvisions_order(image: np.ndarray, change: Distortion) -> None:
    """Each change rounds to a half, and the next one multiplies that."""
    difference = np.abs(distort(image, change) - by_torchvision(image, change, exact=True))
    assert np.percentile(difference, 99) < 2 and difference.max() < 4


def test_order_of_contrast_matters(image: np.ndarray) -> None:
    first = Distortion(contrast=0.5, saturation=1.5)
    assert (distort(image, first) != distort(image, first._replace(contrast_first=False))).any()


def test_nothing_drawn_is_nothing_changed(image: np.ndarray) -> None:
    np.testing.assert_array_equal(distort(image, Distortion(contrast_first=False)), image)


def test_what_nobody_may_write_to(image: np.ndarray) -> None:
    before = image.copy()
    image.flags.writeable = False
    assert (distort(image, SEVERAL[0]) != before).any()
    np.testing.assert_array_equal(image, before)


def test_one_pixel() -> None:
    """A grey of 100 is its own mean; half as bright, and one and a half times as bright again."""
    pixel = np.full((1, 1, 3), 100, np.uint8)
    for change in SEVERAL:
        np.testing.assert_allclose(distort(pixel, change), 100 * change.brightness, atol=0.51)


def test_odds_and_ranges() -> None:
    """Each is drawn with its probability, on its own, and uniformly between the ends."""
    rng = np.random.default_rng(0)
    drawn = [draw_distortion(rng, 0.5, 0.25) for _ in range(4000)]
    numbers = np.array([change[:4] for change in drawn])
    changed = numbers != np.array(Distortion()[:4])
    np.testing.assert_allclose(changed.mean(axis=0), 0.5, atol=0.03)
    assert np.abs(np.corrcoef(changed.T) - np.eye(4)).max() < 0.06
    for column, (low, high) in enumerate([(0.875, 1.125), (0.5, 1.5), (0.5, 1.5), (-0.05, 0.05)]):
        values = numbers[changed[:, column], column]
        quartiles = low + (high - low) * np.array([0.25, 0.5, 0.75])
        assert low <= values.min() and values.max() <= high
        np.testing.assert_allclose(np.quantile(values, [0.25, 0.5, 0.75]), quartiles, atol=0.03 * (high - low))
    assert np.mean([change.contrast_first for change in drawn]) == pytest.approx(0.5, abs=0.03)
    orders, counts = np.unique([change.channels for change in drawn], axis=0, return_counts=True)
    assert len(orders) == 6
    np.testing.assert_allclose(counts / 4000, [0.75 + 0.25 / 6] + [0.25 / 6] * 5, atol=0.03)


def test_never_and_always() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert draw_distortion(rng, 0, 0)[:4] == Distortion()[:4]
        assert not np.isin(draw_distortion(rng, 1, 1)[:4], [1.0, 0.0]).any()


def test_settings_do_not_move_later_draws() -> None:
    """A setting changes what it is about and nothing that is drawn after it."""
    after = set()
    for probability in (0, 0.5, 1):
        rng = np.random.default_rng(7)
        draw_distortion(rng, probability, 1 - probability)
        after.add(rng.random())
    assert len(after) == 1
