"""A sample depends on its key alone, and its boxes lie on what they name."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch

from detkit.data.augmentation import Augmentation
from detkit.data.coco import CocoIndex
from detkit.data.dataset import DetectionDataset, ImageCache
from detkit.data.decode_image import decode_image
from detkit.data.sampler import SampleKey
from detkit.data.transforms import letterbox
from detkit.errors import DataError
from detkit.types import Target
from tests.data.small_set import read_split, write_split

HW = (96, 96)
GEOMETRY_ONLY = Augmentation(hue_degrees=0, saturation=0, brightness=0, min_box_px=0, min_visible_frac=0)
EVERYTHING = Augmentation(
    mixup_probability=0.5, mosaic_probability=0.7, degrees=5, shear=2, vertical_flip_probability=0.5
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CocoIndex:
    root = tmp_path_factory.mktemp("set")
    write_split(root, "train", 9, crowd=True)
    return read_split(root, "train")


def assert_same(first: tuple[np.ndarray, Target], second: tuple[np.ndarray, Target]) -> None:
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1][3:] == second[1][3:]
    for ours, theirs in zip(first[1][:3], second[1][:3], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def painted(target: Target, image_hw: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(image_hw, np.uint8)
    for x1, y1, x2, y2 in target.boxes.round().int().tolist():
        mask[y1:y2, x1:x2] = 1
    return mask


def test_a_sample_depends_on_its_key_alone(index: CocoIndex) -> None:
    keys = [SampleKey(epoch, row, HW) for epoch in range(2) for row in range(len(index))]
    dataset = DetectionDataset(index, EVERYTHING, seed=3)
    expected = {key: dataset[key] for key in keys}
    cached = DetectionDataset(index, EVERYTHING, seed=3, cache_bytes=100_000)  # two images: most are thrown out again
    random.seed(8)
    torch.manual_seed(8)
    shuffled = keys * 2
    random.shuffle(shuffled)
    for key in shuffled:
        assert_same(cached[key], expected[key])


def test_global_generators_are_not_touched(index: CocoIndex) -> None:
    dataset = DetectionDataset(index, Augmentation(transforms=[A.Affine(rotate=(-9, 9)), A.GaussNoise()]))
    before = random.getstate(), str(np.random.get_state(legacy=False)), torch.get_rng_state()  # noqa: NPY002
    dataset[SampleKey(0, 0, HW)]
    assert random.getstate() == before[0]
    assert str(np.random.get_state(legacy=False)) == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_epochs_rows_and_seeds_give_other_samples(index: CocoIndex) -> None:
    images = {
        DetectionDataset(index, EVERYTHING, seed)[SampleKey(epoch, row, HW)][0].tobytes()
        for seed in range(2)
        for epoch in range(4)
        for row in range(len(index))
    }
    assert len(images) == 2 * 4 * len(index)


def test_validation_is_the_letterbox(index: CocoIndex) -> None:
    image, target = DetectionDataset(index)[SampleKey(0, 5, (64, 64))]
    expected, scale_xy = letterbox(decode_image(index.path(5)), (64, 64))
    np.testing.assert_array_equal(image, expected)
    boxes, labels, crowd = index.boxes_of(5)
    assert scale_xy == target.scale_xy == (0.5, 0.5)
    np.testing.assert_array_equal(target.boxes, boxes[~crowd] / 2)
    np.testing.assert_array_equal(target.labels, labels[~crowd])
    np.testing.assert_array_equal(target.ignored_boxes, boxes[crowd] / 2)
    assert (target.image_id, target.original_hw, target.pad_xy) == (15, (96, 128), (0.0, 0.0))
    assert len(target.boxes) == 2 and target.boxes.dtype == torch.float32 and target.labels.dtype == torch.int64


def test_image_without_boxes(index: CocoIndex) -> None:
    _, target = DetectionDataset(index)[SampleKey(0, 0, (64, 64))]
    assert target.boxes.shape == (0, 4) and target.labels.shape == (0,)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("size_hw", [(96, 128), (400, 515)], ids=["near", "reduced"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"mosaic_probability": 0.0}, {"vertical_flip_probability": 0.5, "scale": (0.3, 2.0)}, {"translate": 0.4}],
    ids=["mosaic", "single", "flips", "shifts"],
)
def test_boxes_are_where_the_pixels_are(
    tmp_path: Path, settings: dict[str, Any], size_hw: tuple[int, int], suffix: str
) -> None:
    """Bright pixels and boxes are the same, but for a border of one pixel."""
    write_split(tmp_path, "train", 6, size_hw=size_hw, suffix=suffix)
    dataset = DetectionDataset(read_split(tmp_path, "train"), replace(GEOMETRY_ONLY, **settings))
    num_boxes = 0
    for row in range(6):
        for epoch in range(4):
            image, target = dataset[SampleKey(epoch, row, (128, 128))]
            bright = (image[..., 0] > 127).astype(np.uint8)
            boxes = painted(target, (128, 128))
            square = np.ones((3, 3), np.uint8)
            assert (cv2.erode(bright, square) <= boxes).all()
            assert (cv2.erode(boxes, square) <= bright).all()
            num_boxes += len(target.boxes)
    assert num_boxes > 20


def test_turned_boxes_hold_the_pixels(tmp_path: Path) -> None:
    write_split(tmp_path, "train", 6)
    settings = replace(GEOMETRY_ONLY, degrees=15, shear=5)
    dataset = DetectionDataset(read_split(tmp_path, "train"), settings)
    num_bright = 0
    for row in range(6):
        image, target = dataset[SampleKey(0, row, (128, 128))]
        bright = (image[..., 0] > 200).astype(np.uint8)
        grown = cv2.dilate(painted(target, (128, 128)), np.ones((3, 3), np.uint8))
        assert (bright <= grown).all()
        num_bright += bright.sum()
    assert num_bright > 1000


def test_mixup_keeps_the_boxes_of_both(index: CocoIndex) -> None:
    settings = replace(GEOMETRY_ONLY, mosaic_probability=0, mixup_probability=1, scale=(1, 1), translate=0)
    counts = [len(DetectionDataset(index, settings)[SampleKey(epoch, 5, HW)][1].boxes) for epoch in range(20)]
    assert min(counts) >= 2 and max(counts) == 4  # image 5 has two boxes, its partner up to two


def test_partners_come_from_the_whole_set(index: CocoIndex) -> None:
    """Each image is read in some mosaic of image 0."""
    dataset = DetectionDataset(index, Augmentation(), cache_bytes=10**9)
    for epoch in range(60):
        dataset[SampleKey(epoch, 0, HW)]
    seen = {
        row for row in range(len(index)) if any(dataset.cache.get(row, reduce) is not None for reduce in (1, 2, 4, 8))
    }
    assert seen == set(range(len(index)))


def test_the_last_epochs_are_plain(index: CocoIndex) -> None:
    settings = replace(GEOMETRY_ONLY, plain_from_epoch=3, flip_probability=1)
    dataset = DetectionDataset(index, settings)
    image, target = dataset[SampleKey(3, 5, (64, 64))]
    expected, _ = letterbox(decode_image(index.path(5))[:, ::-1], (64, 64))
    np.testing.assert_array_equal(image, expected)
    boxes, _, crowd = index.boxes_of(5)
    np.testing.assert_allclose(target.boxes, ((128, 0, 128, 0) + boxes * (-1, 1, -1, 1))[~crowd][:, [2, 1, 0, 3]] / 2)
    assert target.scale_xy == (0.5, 0.5)
    assert (dataset[SampleKey(2, 5, (64, 64))][0] != image).any()


def test_crowd_regions_follow(index: CocoIndex) -> None:
    settings = Augmentation(mosaic_probability=0, flip_probability=0, scale=(1, 1), translate=0, min_visible_frac=0)
    _, target = DetectionDataset(index, settings)[SampleKey(0, 1, (128, 128))]
    assert target.ignored_boxes.tolist() == [[0, 64, 64, 112]]  # an image of 96 x 128 in the middle of 128 x 128
    assert len(target.boxes) == 1


def test_user_transforms_come_last(index: CocoIndex) -> None:
    plain = Augmentation(mosaic_probability=0, flip_probability=0)
    flipped = Augmentation(mosaic_probability=0, flip_probability=0, transforms=[A.HorizontalFlip(p=1)])
    first, second = (DetectionDataset(index, settings)[SampleKey(0, 5, HW)] for settings in (plain, flipped))
    np.testing.assert_array_equal(first[0][:, ::-1], second[0])
    mirrored = torch.tensor([96.0, 0, 96, 0]) + first[1].boxes[:, [2, 1, 0, 3]] * torch.tensor([-1.0, 1, -1, 1])
    torch.testing.assert_close(second[1].boxes, mirrored, rtol=0, atol=1e-3)


def test_an_image_that_cannot_be_decoded(tmp_path: Path) -> None:
    write_split(tmp_path, "train", 3)
    dataset = DetectionDataset(read_split(tmp_path, "train"), Augmentation())
    (tmp_path / "train" / "1.png").write_bytes(b"not a picture any more")
    with pytest.raises(DataError, match=r"image 11: .*1\.png"):
        dataset[SampleKey(0, 1, HW)]
    error = dataset.__getitems__([SampleKey(0, 1, HW)])
    assert isinstance(error, DataError) and "image 11" in str(error)


def test_an_image_that_changed_its_size(tmp_path: Path) -> None:
    write_split(tmp_path, "train", 1)
    dataset = DetectionDataset(read_split(tmp_path, "train"))
    cv2.imwrite(str(tmp_path / "train" / "0.png"), np.zeros((96, 127, 3), np.uint8))
    with pytest.raises(DataError, match=r"image 10: .*0\.png has another size than the annotations' 128 x 96"):
        dataset[SampleKey(0, 0, HW)]


def test_cache_keeps_what_was_used_last() -> None:
    cache = ImageCache(250)
    images = {row: np.full((10, 10), row, np.uint8) for row in range(3)}
    cache.put(0, 1, images[0])
    cache.put(1, 1, images[1])
    assert cache.get(0, 1) is images[0] and cache.get(0, 2) is None
    cache.put(2, 1, images[2])
    assert cache.get(1, 1) is None and cache.get(0, 1) is images[0] and cache.get(2, 1) is images[2]
    assert cache.num_bytes == 200
    cache.put(3, 1, np.zeros(251, np.uint8))
    assert cache.get(3, 1) is None and cache.num_bytes == 200
    with pytest.raises(ValueError, match="read-only"):
        images[0][0] = 1
