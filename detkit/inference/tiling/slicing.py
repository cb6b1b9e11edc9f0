"""Detection in windows of large images and in mirrored images."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch

from detkit.inference.tiling.merging import fuse, merge
from detkit.inference.tiling.windows import grid
from detkit.types import Detections

Detect = Callable[[Sequence[np.ndarray]], list[Detections]]


def detect_slices(detect: Detect, image: np.ndarray, slices: int, overlap: float, batch_size: int) -> Detections:
    """The detections of an image from windows, for small objects, and from the whole image, for large ones.

    Args:
        detect: from images, (H, W, 3) uint8 RGB of any size, to the detections of each in its own pixels.
        image: (H, W, 3) uint8 RGB.
        slices: side of a window in pixels of the image.
        overlap: smallest share of a window that the next window covers too. Objects up to this size are complete in
            at least one window.
        batch_size: windows in one call of ``detect``.

    Returns:
        The merged detections of all views, see ``detkit.inference.tiling.merging``.
    """
    image_hw = (image.shape[0], image.shape[1])
    windows = list(grid(image_hw, slices, overlap))
    if len(windows) > 1:
        windows.append((0, 0, image_hw[1], image_hw[0]))  # last, because at equal scores the finer view has priority
    found: list[Detections] = []
    waiting = iter(windows)
    while batch := list(itertools.islice(waiting, batch_size)):
        parts = detect([image[y1:y2, x1:x2] for x1, y1, x2, y2 in batch])
        found += [_moved(part, window[:2]) for part, window in zip(parts, batch, strict=True)]
    return merge(found, torch.tensor(windows), image_hw)


def detect_mirrored(detect: Detect, least: float, images: Sequence[np.ndarray]) -> list[Detections]:
    """The fused detections of the images and of their mirror images that have at least this score."""
    mirrored = detect([np.ascontiguousarray(image[:, ::-1]) for image in images])
    views = zip(detect(images), mirrored, images, strict=True)
    fused = [fuse(ours, _mirrored(theirs, image.shape[1])) for ours, theirs, image in views]
    return [Detections(*(values[found.scores >= least] for values in found)) for found in fused]


def _moved(found: Detections, by_xy: tuple[int, int]) -> Detections:
    return found._replace(boxes=found.boxes + found.boxes.new_tensor(by_xy * 2))


def _mirrored(found: Detections, width: int) -> Detections:
    x1, y1, x2, y2 = found.boxes.unbind(dim=1)
    return found._replace(boxes=torch.stack((width - x2, y1, width - x1, y2), dim=1))
