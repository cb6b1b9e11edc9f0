"""Zoom-out and IoU crop as numbers: the window of the image's plane that a sample shows.

A window is xyxy in whole pixels of the image. Zoom-out gives one that is larger than the image, the crop one inside
of another; what of it lies beyond the image is background. No larger canvas is ever made, and the window's pixels
are resized once.

Source: Liu et al., SSD: Single Shot MultiBox Detector, 2016, §2.2 (crop) and §3.6 (zoom-out).
    https://arxiv.org/abs/1512.02325
    The ranges, and that a crop which leaves the image as it is ends a search, are those of torchvision 0.29,
    RandomZoomOut and RandomIoUCrop.
"""

import numpy as np
import torch

from detkit.data.augment.transforms import Sample, affine_matrix
from detkit.ops.iou import pairwise_iou

ZOOM_OUT = (1.0, 4.0)  # factor on both sides of the image
CROP_SCALE = (0.3, 1.0)  # factor on each side of the window
CROP_ASPECT = (0.5, 2.0)  # width / height of the crop, in pixels
LEAST_IOUS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # the last leaves the window as it is
TRIALS = 40  # crops for one of these


def zoom_out(rng: np.random.Generator, source_hw: tuple[int, int]) -> np.ndarray:
    """(4,) int64 window with the whole image at a random place in it."""
    height, width = source_hw
    factor = rng.uniform(*ZOOM_OUT)
    window_wh = np.array([int(width * factor), int(height * factor)])
    corner = -(rng.random(2) * (window_wh - (width, height))).astype(np.int64)
    return np.concatenate([corner, corner + window_wh])


def iou_crop(rng: np.random.Generator, window: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """A random part of a window with the centre of at least one box in it, whose IoU with the part is large enough.

    How large is drawn first; if no crop of ``TRIALS`` is found, it is drawn again.

    Args:
        rng: of the sample.
        window: (4,) int64.
        boxes: (N, 4) xyxy in the plane of the image; without any the window stays as it is.

    Returns:
        (4,) int64 window.
    """
    if len(boxes) == 0:
        return window
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    while (least_iou := LEAST_IOUS[rng.integers(len(LEAST_IOUS))]) < 1:
        crops = _draw_crops(rng, window)
        holds = ((centres > crops[:, None, :2]) & (centres < crops[:, None, 2:])).all(axis=2)
        ious = pairwise_iou(torch.from_numpy(crops.astype(np.float32)), torch.from_numpy(boxes)).numpy()
        fits = (holds & (ious >= least_iou)).any(axis=1)
        if fits.any():
            return crops[fits.argmax()]
    return window


def window_matrix(window: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Matrix from the image to a canvas of this size, which the window fills."""
    x1, y1, x2, y2 = window.tolist()
    scale_xy = (size_hw[1] / (x2 - x1), size_hw[0] / (y2 - y1))
    return affine_matrix(scale_xy, (-x1 * scale_xy[0], -y1 * scale_xy[1]))


def keep_centred(sample: Sample) -> Sample:
    """Boxes clipped to the image, without those whose centre lies outside; of crowd regions what is inside stays."""
    height, width = sample.image.shape[:2]
    centres = (sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2
    boxes = np.clip(sample.boxes, 0, np.array([width, height, width, height], np.float32))
    keep = ((centres > 0) & (centres < (width, height))).all(axis=1) | sample.crowd
    keep &= (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return Sample(sample.image, boxes[keep], sample.labels[keep], sample.crowd[keep])


def _draw_crops(rng: np.random.Generator, window: np.ndarray) -> np.ndarray:
    """(T, 4) int64 windows inside of this one, those of an aspect ratio in range; T may be 0."""
    numbers = rng.random((TRIALS, 4))
    whole_wh = window[2:] - window[:2]
    smallest, largest = CROP_SCALE
    sides_wh = (whole_wh * (smallest + (largest - smallest) * numbers[:, :2])).astype(np.int64)
    corners = window[:2] + ((whole_wh - sides_wh) * numbers[:, 2:]).astype(np.int64)
    narrowest, widest = CROP_ASPECT
    width, height = sides_wh.T
    keep = (width > 0) & (height > 0) & (width >= narrowest * height) & (width <= widest * height)
    return np.concatenate([corners, corners + sides_wh], axis=1)[keep]
