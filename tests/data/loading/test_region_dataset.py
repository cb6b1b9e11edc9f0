"""Samples of a classifier: pure functions of their key, and the geometry that the settings promise."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detkit.data.augment import ClassAugmentation
from detkit.data.images.resize import letterbox
from detkit.data.index.image_folder import read_folder
from detkit.data.loading.region_dataset import RegionDataset
from detkit.data.loading.sampler import SampleKey
from detkit.errors import DataError
from tests.helpers.colour_set import write_image

PLAIN = ClassAugmentation(
    scale=(1, 1), stretch=1, translate=0, flip_probability=0, hue_degrees=0, saturation=0, brightness=0
)


def dataset_of(root: Path, image: np.ndarray, augmentation: ClassAugmentation | None, **settings: Any) -> RegionDataset:
    (root / "train/only").mkdir(parents=True)
    write_image(root / "train/only/image.png", image)
    return RegionDataset(read_folder(root / "train"), augmentation, **settings)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def image_of(dataset: RegionDataset, epoch: int, image_hw: tuple[int, int] = (32, 32)) -> np.ndarray:
    return dataset[SampleKey(epoch, 0, image_hw)][0]


@pytest.mark.parametrize("size_hw", [(20, 30), (49, 49), (5, 70), (60, 1), (48, 60)], ids=str)
def test_without_augmentation_it_is_the_letterbox(tmp_path: Path, size_hw: tuple[int, int]) -> None:
    picture = noise(*size_hw)
    dataset = dataset_of(tmp_path, picture, None)
    np.testing.assert_array_equal(image_of(dataset, 0, (48, 60)), letterbox(picture, (48, 60))[0])


def test_plain_training_is_the_image_itself(tmp_path: Path) -> None:
    picture = noise(32, 32)
    dataset = dataset_of(tmp_path, picture, PLAIN)
    np.testing.assert_array_equal(image_of(dataset, 3), picture)


def test_the_shift_of_cifar(tmp_path: Path) -> None:
    """Scale 1 and translate 0.125 are the crop of 32 from an image padded by 4, as torchvision's RandomCrop does."""
    picture = noise(32, 32)
    dataset = dataset_of(tmp_path, picture, replace(PLAIN, translate=0.125))
    padded = np.full((40, 40, 3), 114, np.uint8)
    padded[4:36, 4:36] = picture
    windows = {padded[y : y + 32, x : x + 32].tobytes(): (x, y) for y in range(9) for x in range(9)}
    seen = [windows[image_of(dataset, epoch).tobytes()] for epoch in range(300)]  # a KeyError: not such a window
    assert {x for x, _ in seen} == {y for _, y in seen} == set(range(9))


def test_what_is_larger_shows_a_part_of_it(tmp_path: Path) -> None:
    """At scale 2 the window is any half of the image: no grey, and its left edge in [0, 32] of 64."""
    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[..., 0] = np.arange(64)
    ramp[..., 1] = np.arange(64)[:, None]
    dataset = dataset_of(tmp_path, ramp, replace(PLAIN, scale=(2, 2)))
    lefts, tops = [], []
    for epoch in range(200):
        image = image_of(dataset, epoch)
        left, top = int(image[0, 0, 0]), int(image[0, 0, 1])
        np.testing.assert_array_equal(image, ramp[top : top + 32, left : left + 32])
        lefts.append(left)
        tops.append(top)
    for edges in (lefts, tops):
        assert min(edges) <= 1 and max(edges) >= 31 and 13 < np.mean(edges) < 19


def test_what_is_smaller_lies_anywhere_inside(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, np.zeros((16, 16, 3), np.uint8), replace(PLAIN, scale=(0.5, 0.5)))
    lefts = []
    for epoch in range(200):
        ys, xs = np.nonzero(image_of(dataset, epoch)[..., 0] == 0)
        assert (np.ptp(xs), np.ptp(ys), len(xs)) == (15, 15, 256)
        lefts.append(xs.min())
    assert (min(lefts), max(lefts)) == (0, 16)


def test_stretch_is_the_largest_change_of_the_aspect(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, np.zeros((40, 40, 3), np.uint8), replace(PLAIN, scale=(0.5, 0.5), stretch=1.5))
    aspects = []
    for epoch in range(200):
        ys, xs = np.nonzero(image_of(dataset, epoch, (200, 200))[..., 0] == 0)
        width, height = np.ptp(xs) + 1, np.ptp(ys) + 1
        assert width * height == pytest.approx(100 * 100, rel=0.02)  # the area stays
        aspects.append(width / height)
    assert 1 / 1.52 < min(aspects) < 1 / 1.4 and 1.4 < max(aspects) < 1.52


def test_flip(tmp_path: Path) -> None:
    picture = noise(32, 32)
    dataset = dataset_of(tmp_path, picture, replace(PLAIN, flip_probability=0.5))
    mirrored = [bool((image_of(dataset, epoch) == picture[:, ::-1]).all()) for epoch in range(200)]
    assert all(mirrored[epoch] or (image_of(dataset, epoch) == picture).all() for epoch in range(200))
    assert 70 < sum(mirrored) < 130


def test_a_large_image_is_smoothed(tmp_path: Path) -> None:
    """Stripes of one pixel become their mean; every eighth pixel alone would show black or white."""
    stripes = np.zeros((400, 800, 3), np.uint8)
    stripes[:, ::2] = 255
    image = image_of(dataset_of(tmp_path, stripes, None), 0, (50, 100))
    assert np.abs(image.astype(int) - 128).max() <= 2
    grey = image_of(dataset_of(tmp_path / "other", np.zeros((401, 803, 3), np.uint8), None), 0, (64, 64))
    assert np.flatnonzero((grey == 114).all(axis=(1, 2))).tolist() == list(range(int(401 * 64 / 803), 64))


@pytest.mark.parametrize("augmentation", [None, PLAIN])
def test_a_crop_of_a_reduced_image_lies_where_it_should(tmp_path: Path, augmentation: ClassAugmentation | None) -> None:
    """Cut from a quarter of the image it equals the region of the whole image, to half a pixel of the input."""
    blurred = cv2.GaussianBlur(noise(320, 480).astype(np.float32), (0, 0), 12)
    picture = cv2.normalize(blurred, np.zeros(0), 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    dataset = dataset_of(tmp_path, picture, augmentation, cache_bytes=2**20)
    dataset.index = replace(dataset.index, regions=np.array([[37, 51, 301, 259]], np.int32))
    image = image_of(dataset, 0, (52, 66)).astype(int)
    expected = cv2.resize(picture[51:259, 37:301], (66, 52), interpolation=cv2.INTER_AREA).astype(int)
    assert (0, 4) in dataset.images.cache and (0, 1) not in dataset.images.cache
    error = np.abs(image - expected)[2:-2, 2:-2].mean()
    for y, x in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        assert error < 0.6 * np.abs(image - np.roll(expected, (y, x), (0, 1)))[2:-2, 2:-2].mean()


@pytest.mark.parametrize("augmentation", [None, ClassAugmentation()])
def test_pure(tmp_path: Path, augmentation: ClassAugmentation | None) -> None:
    """The same sample again, from a cache or not; another one in another epoch or with another seed."""
    dataset = dataset_of(tmp_path, noise(90, 130), augmentation, cache_bytes=2**20)
    first = [image_of(dataset, epoch) for epoch in range(4)]
    cold = RegionDataset(dataset.index, augmentation)
    for epoch in (3, 1, 0, 2):
        np.testing.assert_array_equal(image_of(dataset, epoch), first[epoch])
        np.testing.assert_array_equal(image_of(cold, epoch), first[epoch])
    distinct = {image.tobytes() for image in first}
    assert len(distinct) == (1 if augmentation is None else 4)
    if augmentation is not None:
        assert image_of(RegionDataset(dataset.index, augmentation, seed=1), 0).tobytes() not in distinct


def test_crops_share_a_decoded_image(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, noise(60, 60), None, cache_bytes=2**20)
    regions = np.array([[0, 0, 20, 20], [30, 30, 60, 60]], np.int32)
    rows, labels = np.zeros(2, np.int64), np.zeros(2, np.int64)
    dataset.index = replace(dataset.index, regions=regions, image_rows=rows, labels=labels)
    path = tmp_path / "train/only/image.png"
    before = path.stat()
    dataset[SampleKey(0, 0, (16, 16))]
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    dataset[SampleKey(0, 1, (16, 16))]  # from the cache: the file only looks as if it were the same


def test_faults_of_files(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, noise(20, 20), None)
    path = tmp_path / "train/only/image.png"
    write_image(path, noise(20, 21))
    with pytest.raises(DataError, match=r"image 0: .*image\.png: its size is not 20 x 20 any more"):
        image_of(dataset, 0)
    path.write_bytes(b"nothing")
    found = dataset.__getitems__([SampleKey(0, 0, (32, 32))])
    assert isinstance(found, DataError) and "image 0: " in str(found) and "not an image" in str(found)
    dataset.images.index = replace(
        dataset.index, sizes_hw=np.zeros((1, 2), np.int32)
    )  # of a file that was not looked into
    with pytest.raises(DataError, match=r"image 0: .*not an image"):
        image_of(dataset, 0)


def test_a_file_that_was_not_looked_into(tmp_path: Path) -> None:
    picture = noise(20, 30)
    dataset = dataset_of(tmp_path, picture, None)
    dataset.images.index = replace(dataset.index, sizes_hw=np.zeros((1, 2), np.int32))
    np.testing.assert_array_equal(image_of(dataset, 0, (40, 40)), letterbox(picture, (40, 40))[0])
