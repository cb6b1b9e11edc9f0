"""Slices beside the truth: rectangles drawn on seams, and a detector that finds each exactly, as far as it sees it."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from detkit.inference.tiling.merging import MIN_SCORE_SHARE, fuse, merge
from detkit.inference.tiling.slicing import detect_mirrored, detect_slices
from detkit.inference.tiling.windows import grid
from detkit.types import Detections

SIDE, OVERLAP = 64, 0.25


class Seeing:
    """Finds all drawn rectangles; as blurred as asked for, and not where an image is larger than a window."""

    def __init__(self, seed: int = 0, noise_frac: float = 0.0, is_blind_to_large: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.noise_frac = noise_frac
        self.is_blind_to_large = is_blind_to_large
        self.batches: list[int] = []

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        self.batches.append(len(images))
        return [self._find(image.astype(int) @ (1, 256, 0)) for image in images]

    def _find(self, values: np.ndarray) -> Detections:
        boxes = []
        for value in np.unique(values[values > 0]) if not (self.is_blind_to_large and max(values.shape) > SIDE) else ():
            ys, xs = (values == value).nonzero()
            boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        exact = np.array(boxes, dtype=float).reshape(-1, 4)
        noise = self.noise_frac * self.rng.normal(size=exact.shape) * np.tile(exact[:, 2:] - exact[:, :2], 2)
        limits = np.tile(values.shape[::-1], 2)
        scores = self.rng.uniform(0.51, 1, len(boxes))
        return detections((exact + noise).clip(0, limits), scores)


class Score(NamedTuple):
    lost: int
    doubled: int
    false: int


def detections(boxes: np.ndarray | Sequence[Sequence[float]], scores: np.ndarray | Sequence[float]) -> Detections:
    boxes_tensor = torch.as_tensor(np.array(boxes), dtype=torch.float32).reshape(-1, 4)
    scores_tensor = torch.as_tensor(np.array(scores), dtype=torch.float32)
    return Detections(boxes_tensor, scores_tensor, torch.zeros(len(scores_tensor), dtype=torch.int64))


def draw(seed: int, largest: int) -> tuple[np.ndarray, Tensor]:
    """An image full of rectangles that do not touch, each with a value of its own."""
    rng = np.random.default_rng(seed)
    image_height, image_width = rng.integers(40, 400, 2).tolist()
    image = np.zeros((image_height, image_width, 3), np.uint8)
    boxes = []
    for _ in range(200):
        width, height = rng.integers(3, largest + 1, 2)
        x, y = rng.integers(0, image_width), rng.integers(0, image_height)
        around = image[max(0, y - 1) : y + height + 1, max(0, x - 1) : x + width + 1]
        if x + width <= image_width and y + height <= image_height and not around.any():
            number = len(boxes) + 1
            image[y : y + height, x : x + width] = (number % 256, number // 256, 0)
            boxes.append([x, y, x + width, y + height])
    return image, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def count(found: Tensor, truth: Tensor, least_iou: float) -> Score:
    hits = torchvision.ops.box_iou(found, truth) >= least_iou
    per_object = hits.sum(dim=0)
    return Score(int((per_object == 0).sum()), int((per_object - 1).clamp(min=0).sum()), int((~hits.any(dim=1)).sum()))


@pytest.mark.parametrize("is_blind_to_large", [False, True], ids=["whole image too", "windows alone"])
@pytest.mark.parametrize("largest", [int(SIDE * OVERLAP), 60, 150])
@pytest.mark.parametrize("seed", range(8))
def test_every_object_is_found_once(seed: int, largest: int, is_blind_to_large: bool) -> None:
    """Exactly, whether some window holds it or many windows hold a part of it each."""
    image, truth = draw(seed, largest)
    found = detect_slices(Seeing(seed, is_blind_to_large=is_blind_to_large), image, SIDE, OVERLAP, 4)
    assert sorted(found.boxes.tolist()) == sorted(truth.tolist())
    assert (found.scores.diff() <= 0).all()


def seen_by_windows(image: np.ndarray, seeing: Seeing) -> tuple[list[Detections], Tensor]:
    """Each window's detections in pixels of the image, and the windows."""
    windows = list(grid(image.shape[:2], SIDE, OVERLAP))
    found = [seeing([image[y1:y2, x1:x2]])[0] for x1, y1, x2, y2 in windows]
    shifts = [torch.tensor([x1, y1, x1, y1]) for x1, y1, _, _ in windows]
    return [one._replace(boxes=one.boxes + by) for one, by in zip(found, shifts, strict=True)], torch.tensor(windows)


@pytest.mark.parametrize("largest", [16, 60, 150])
def test_boxes_that_are_not_exact(largest: int) -> None:
    """Each side 5 % of the box off, in every window anew, on borders too: hardly one lost or doubled.

    Plain suppression leaves many fragments: the figures can be missed.
    """
    objects, ours, plain = 0, [0, 0, 0], [0, 0, 0]
    for seed in range(8):
        image, truth = draw(seed, largest)
        found, windows = seen_by_windows(image, Seeing(seed, 0.05))
        merged = merge(found, windows, image.shape[:2])
        boxes, scores = (torch.cat(values) for values in list(zip(*found, strict=True))[:2])
        suppressed = boxes[torchvision.ops.nms(boxes, scores, 0.5)]
        ours = [a + b for a, b in zip(ours, count(merged.boxes, truth, 0.5), strict=True)]
        plain = [a + b for a, b in zip(plain, count(suppressed, truth, 0.5), strict=True)]
        objects += len(truth)
    assert max(ours[:2]) <= 0.02 * objects
    assert ours[2] <= 0.1 * objects
    assert plain[2] > 0.25 * objects


@pytest.mark.parametrize("seed", range(5))
def test_a_threshold_before_gives_what_one_after_gives(seed: int) -> None:
    """Of boxes in heaps, cut and not, that say nothing of any object."""
    rng = np.random.default_rng(seed)
    windows = torch.tensor([(0, 0, 160, 160), *grid((160, 160), SIDE, OVERLAP)])
    centres = rng.uniform(0, 160, (12, 2))
    found = []
    for window in windows.tolist():
        sizes = rng.uniform(10, 90, (60, 2))
        middle = centres[rng.integers(0, 12, 60)] + rng.normal(0, 3, (60, 2))
        boxes = np.concatenate((middle - sizes / 2, middle + sizes / 2), axis=1).clip(window[:2] * 2, window[2:] * 2)
        boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
        found.append(detections(boxes, rng.uniform(0, 1, len(boxes))))
    everything = merge(found, windows, (160, 160))
    for threshold in (0.2, 0.5, 0.8):
        rows = [(one.scores >= MIN_SCORE_SHARE * threshold).nonzero().squeeze(1) for one in found]
        enough = [Detections(*(values[row] for values in one)) for one, row in zip(found, rows, strict=True)]
        merged = merge(enough, windows, (160, 160))
        best, expected = merged.scores >= threshold, everything.scores >= threshold
        assert expected.any()
        assert torch.equal(merged.boxes[best], everything.boxes[expected])
        assert torch.equal(merged.scores[best], everything.scores[expected])


def test_views_decide_together_and_each_alone() -> None:
    """Boxes of one view do not drop each other, nor do those of different classes."""
    whole = torch.tensor([[0, 0, 100, 100]])
    heap = detections([[10, 10, 40, 40], [11, 10, 41, 40]], [0.9, 0.8])
    assert len(merge([heap], whole, (100, 100)).scores) == 2
    others = heap._replace(labels=torch.tensor([1, 0]), scores=torch.tensor([0.7, 0.6]))
    merged = merge([heap, others], whole.repeat(2, 1), (100, 100))
    assert merged.labels.tolist() == [0, 0, 1]
    torch.testing.assert_close(merged.scores, torch.tensor([0.9, 0.8, 0.7]))


def test_a_small_box_in_a_fragment_stays() -> None:
    """A car before a lorry that the border cuts: neither is a part of the other."""
    windows = torch.tensor([[0, 0, 64, 64], [48, 0, 112, 64]])
    left = detections([[10, 5, 64, 60]], [0.9])  # the lorry, up to the border
    right = detections([[48, 5, 80, 60], [50, 30, 60, 40]], [0.8, 0.7])  # its rest, and the car
    merged = merge([left, right], windows, (64, 112))
    assert merged.boxes.tolist() == [[10, 5, 80, 60], [50, 30, 60, 40]]
    torch.testing.assert_close(merged.scores, torch.tensor([0.9, 0.7]))


def test_nothing_found() -> None:
    nothing = detections([], [])
    windows = torch.tensor([[0, 0, 64, 64], [48, 0, 112, 64]])
    assert merge([nothing, nothing], windows, (64, 112)).boxes.shape == (0, 4)
    assert fuse(nothing, nothing).boxes.shape == (0, 4)
    assert detect_slices(
        lambda images: [nothing] * len(images), np.zeros((9, 90, 3), np.uint8), 32, 0.2, 8
    ).boxes.shape == (0, 4)


@pytest.mark.parametrize("seed", range(20))
def test_windows_cover_the_image_and_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width, slices = (int(n) for n in rng.integers(32, 700, 3))
    overlap = float(rng.uniform(0, 0.9))
    windows = list(grid((height, width), slices, overlap))
    x_starts, y_starts = (sorted({window[axis] for window in windows}) for axis in (0, 1))
    assert len(windows) == len(set(windows)) == len(x_starts) * len(y_starts)
    for starts, length, ends in (
        (x_starts, width, {w[2] for w in windows}),
        (y_starts, height, {w[3] for w in windows}),
    ):
        side, step = min(slices, length), max(1, math.floor(slices * (1 - overlap)))
        assert starts[0] == 0 and starts[-1] + side == length
        assert {start + side for start in starts} == ends
        assert all(after - before <= step for before, after in itertools.pairwise(starts))
        assert len(starts) == 1 + math.ceil((length - side) / step)  # not one more than it takes


def test_an_image_that_fits_in_a_window_is_seen_once() -> None:
    seeing = Seeing()
    detect_slices(seeing, np.zeros((64, 40, 3), np.uint8), SIDE, OVERLAP, 8)
    assert seeing.batches == [1]


def test_few_windows_at_a_time() -> None:
    seeing = Seeing()
    detect_slices(seeing, np.zeros((200, 300, 3), np.uint8), SIDE, OVERLAP, 7)
    assert sum(seeing.batches) == 1 + 4 * 6
    assert max(seeing.batches) == 7


def test_the_mirror_gives_exact_boxes_the_same() -> None:
    image, truth = draw(3, 40)

    def detect(images: Sequence[np.ndarray]) -> list[Detections]:
        return [one._replace(scores=torch.full_like(one.scores, 0.75)) for one in Seeing()(images)]

    (found,) = detect_mirrored(detect, 0.0, [image])
    assert sorted(found.boxes.tolist()) == sorted(truth.tolist())
    assert found.scores.tolist() == [0.75] * len(truth)


def test_fused_by_hand() -> None:
    """One object that both saw, with IoU 0.9, one that each alone saw, and one of another class in the same place."""
    ours = detections([[0, 0, 10, 10], [50, 50, 60, 60], [0, 80, 10, 90]], [0.9, 0.5, 0.4])
    theirs = detections([[0, 0, 10, 9], [80, 0, 90, 10], [0, 80, 10, 90]], [0.3, 0.8, 0.4])
    theirs = theirs._replace(labels=torch.tensor([0, 0, 1]))
    fused = fuse(ours, theirs)
    torch.testing.assert_close(fused.scores, torch.tensor([0.6, 0.4, 0.25, 0.2, 0.2]))
    assert fused.labels.tolist() == [0, 0, 0, 0, 1]
    torch.testing.assert_close(fused.boxes[0], torch.tensor([0, 0, 10, (10 * 0.9 + 9 * 0.3) / 1.2]))
    assert fused.boxes[1:].tolist() == [[80, 0, 90, 10], [50, 50, 60, 60], [0, 80, 10, 90], [0, 80, 10, 90]]


def test_each_box_has_one_partner_the_nearest() -> None:
    ours = detections([[0, 0, 10, 10], [0, 0, 10, 8]], [0.9, 0.8])
    theirs = detections([[0, 0, 10, 9.5]], [0.7])
    fused = fuse(ours, theirs)
    torch.testing.assert_close(fused.scores, torch.tensor([0.8, 0.4]))
    assert fused.boxes[1].tolist() == [0, 0, 10, 8]


def test_a_doubtful_second_box_takes_no_ones_place() -> None:
    """Though its IoU with theirs is 1, and that of the first 0.9."""
    ours = detections([[0, 0, 10, 10], [0, 0, 10, 9]], [0.9, 0.1])
    theirs = detections([[0, 0, 10, 9]], [0.9])
    fused = fuse(ours, theirs)
    torch.testing.assert_close(fused.scores, torch.tensor([0.9, 0.05]))
    torch.testing.assert_close(fused.boxes[0], torch.tensor([0, 0, 10, 9.5]))


def test_least_is_asked_of_the_fused_score() -> None:
    (found,) = detect_mirrored(
        lambda images: [detections([[0, 0, 4, 4]], [0.6])] * len(images), 0.31, [np.zeros((9, 9, 3))]
    )
    assert len(found.scores) == 0
