"""Photometric distortion: brightness, contrast, saturation, hue and order of the channels, each drawn or kept."""

from typing import NamedTuple

import cv2
import numpy as np

BRIGHTNESS = (0.875, 1.125)
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
HUE_TURNS = (-0.05, 0.05)
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
BAND_PIXELS = 2**13  # 100 kB as floats


class Distortion(NamedTuple):
    """How the colours of one image change; the defaults change nothing."""

    brightness: float = 1.0  # factor
    contrast: float = 1.0  # factor on the distance from the image's mean grey
    saturation: float = 1.0  # factor on the distance from a pixel's own grey
    hue_turns: float = 0.0  # of the circle of hues in HSV, 1 for all of it
    contrast_first: bool = True  # before saturation and hue, or after them
    channels: tuple[int, ...] = (0, 1, 2)  # which of the three becomes the first, the second, the third


def draw_distortion(rng: np.random.Generator, probability: float, shuffle_probability: float) -> Distortion:
    """A random distortion, always with the same number of draws.

    Args:
        rng: of the sample.
        probability: of each of brightness, contrast, saturation and hue, on its own.
        shuffle_probability: of a random order of the channels.

    Source: Liu et al., SSD: Single Shot MultiBox Detector, 2016, §2.2. https://arxiv.org/abs/1512.02325
        Ranges and orders are those of torchvision 0.29, RandomPhotometricDistort, which has one probability for
        all five.
    """
    brightness, contrast, saturation, hue, shuffles = rng.random(5) < (*[probability] * 4, shuffle_probability)
    factors = [rng.uniform(*span) for span in (BRIGHTNESS, CONTRAST, SATURATION, HUE_TURNS)]
    contrast_first, channels = bool(rng.random() < 0.5), tuple(rng.permutation(3).tolist())
    return Distortion(
        brightness=factors[0] if brightness else 1.0,
        contrast=factors[1] if contrast else 1.0,
        saturation=factors[2] if saturation else 1.0,
        hue_turns=factors[3] if hue else 0.0,
        contrast_first=contrast_first,
        channels=channels if shuffles else (0, 1, 2),
    )


def distort(image: np.ndarray, distortion: Distortion) -> np.ndarray:
    """The image in other colours; after each change values are clipped to [0, 255].

    Args:
        image: (H, W, 3) uint8 RGB, not written to.
        distortion: what to do.
    """
    same = np.eye(3)
    if distortion.brightness != 1:
        image = cv2.transform(image, distortion.brightness * same)
    if distortion.contrast != 1 and distortion.contrast_first:
        image = _change_contrast(image, distortion.contrast)
    if distortion.saturation != 1:
        image = cv2.transform(image, distortion.saturation * same + (1 - distortion.saturation) * LUMA)
    if distortion.hue_turns != 0:
        image = _turn_hue(image, distortion.hue_turns)
    if distortion.contrast != 1 and not distortion.contrast_first:
        image = _change_contrast(image, distortion.contrast)
    if distortion.channels != (0, 1, 2):
        image = cv2.transform(image, same[list(distortion.channels)])
    return image


def _change_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    return cv2.transform(image, np.column_stack([factor * np.eye(3), [(1 - factor) * mean] * 3]))


def _turn_hue(image: np.ndarray, turns: float) -> np.ndarray:
    """In float32, as with 8 bits of hue a colour moves by up to ten grey levels; in bands, which stay in the cache."""
    degrees = np.array([360 * (turns % 1), 0, 0, 0])
    turned = np.empty_like(image)
    rows = max(1, BAND_PIXELS // image.shape[1])
    for top in range(0, len(image), rows):
        band = cv2.cvtColor(image[top : top + rows].astype(np.float32), cv2.COLOR_RGB2HSV)
        cv2.add(band, degrees, dst=band)
        cv2.convertScaleAbs(cv2.cvtColor(band, cv2.COLOR_HSV2RGB), dst=turned[top : top + rows])
    return turned
