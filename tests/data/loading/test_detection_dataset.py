"""A sample depends on its key alone, and its boxes lie on what they name."""

import json
import pickle
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detkit.data.augment.augmentation import Augmentation
from detkit.data.images.resize import RESIZES, Resize
from detkit.data.index.coco_index import CocoIndex, load_index
from detkit.data.loading.detection_dataset import DetectionDataset
from detkit.data.loading.image_reader import ImageCache
from detkit.data.loading.sampler import SampleKey, stream
from detkit.errors import DataError
from detkit.ops.boxes import boxes_to_original
from detkit.types import Target
from tests.helpers.small_set import read_split, write_split

HW = (96, 96)
GEOMETRY_ONLY = Augmentation(hue_degrees=0, saturation=0, brightness=0, min_box_px=0, min_visible_frac=0)
EVERYTHING = Augmentation(
    mixup_probability=0.5, mosaic_probability=0.7, degrees=5, shear=2, vertical_flip_probability=0.5
)
ZOOMS = replace(GEOMETRY_ONLY, mosaic_probability=0, zoom_out_probability=0.5, iou_crop_probability=0.8)
STRONG = replace(
    EVERYTHING,
    zoom_out_probability=0.5,
    iou_crop_probability=0.8,
    photometric_probability=0.5,
    channel_shuffle_probability=0.5,
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


@pytest.mark.parametrize(("settings", "resize"), [(EVERYTHING, "letterbox"), (STRONG, "letterbox"), (STRONG, "squash")])
def test_a_sample_depends_on_its_key_alone(index: CocoIndex, settings: Augmentation, resize: Resize) -> None:
    keys = [SampleKey(epoch, row, HW) for epoch in range(2) for row in range(len(index))]
    dataset = DetectionDataset(index, settings, seed=3, resize=resize)
    expected = {key: dataset[key] for key in keys}
    cached = DetectionDataset(index, settings, seed=3, cache_bytes=100_000, resize=resize)  # two images: most leave it
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
    """96 x 128 fits 64 x 64 as 48 x 64; what is left below is grey."""
    image, target = DetectionDataset(index)[SampleKey(0, 5, (64, 64))]
    expected = np.full((64, 64, 3), 114, np.uint8)
    original = cv2.imread(str(index.path(5)))
    assert original is not None
    expected[:48] = cv2.resize(original, (64, 48), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(image, expected)  # black and white: the order of channels is the same
    assert target.scale_xy == (0.5, 0.5)
    assert target.boxes.tolist() == [[6, 4.5, 20.5, 21.5], [39, 10, 54, 22.5]]
    assert target.labels.tolist() == [1, 0]
    assert target.crowd_boxes.tolist() == [[0, 24, 32, 48]]
    assert (target.image_id, target.original_hw, target.pad_xy) == (15, (96, 128), (0.0, 0.0))
    assert target.boxes.dtype == torch.float32 and target.labels.dtype == torch.int64


def test_squashed_validation_and_the_way_back(index: CocoIndex) -> None:
    image, target = DetectionDataset(index, resize="squash")[SampleKey(0, 5, (64, 32))]
    expected = Image.open(index.path(5)).resize((32, 64), Image.Resampling.BILINEAR)  # cv2 does not antialias
    assert np.abs(image.astype(int) - np.asarray(expected)).max() <= 1
    assert target.scale_xy == (32 / 128, 64 / 96) and target.pad_xy == (0.0, 0.0)
    np.testing.assert_allclose(target.boxes, [[3, 6, 10.25, 43 * 2 / 3], [19.5, 20 * 2 / 3, 27, 30]], rtol=1e-6)
    back = boxes_to_original(target.boxes, target.original_hw, target.scale_xy)
    np.testing.assert_allclose(back, [[12, 9, 41, 43], [78, 20, 108, 45]], rtol=1e-5)


def test_image_without_boxes(index: CocoIndex) -> None:
    _, target = DetectionDataset(index)[SampleKey(0, 0, (64, 64))]
    assert target.boxes.shape == (0, 4) and target.labels.shape == (0,)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("size_hw", [(96, 128), (400, 515)], ids=["near", "reduced"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mosaic_probability": 0.0},
        {"vertical_flip_probability": 0.5, "scale": (0.3, 2.0)},
        {"translate": 0.4},
        {"mosaic_probability": 0.0, "zoom_out_probability": 1.0},
    ],
    ids=["mosaic", "single", "flips", "shifts", "zoom-out"],
)
@pytest.mark.parametrize("resize", ["letterbox", "squash"])
def test_boxes_are_where_the_pixels_are(
    tmp_path: Path, resize: Resize, settings: dict[str, Any], size_hw: tuple[int, int], suffix: str
) -> None:
    """Bright pixels and boxes are the same, but for a border of one pixel."""
    write_split(tmp_path, "train", 6, size_hw=size_hw, suffix=suffix)
    dataset = DetectionDataset(read_split(tmp_path, "train"), replace(GEOMETRY_ONLY, **settings), resize=resize)
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


def test_squashed_samples_are_as_in_validation(shared_data: Path) -> None:
    """What fills the canvas without zoom-out, crop or affine are the very pixels; a mosaic leaves nothing grey."""
    root = shared_data / "bccd"
    index = load_index(root / "annotations" / "instances_val.json", root / "val")
    still = replace(GEOMETRY_ONLY, mosaic_probability=0, scale=(1, 1), translate=0, flip_probability=0)
    for settings in (still, replace(still, iou_crop_probability=1e-9)):
        sample, target = DetectionDataset(index, settings, resize="squash")[SampleKey(0, 3, (256, 320))]
        expected, expected_target = DetectionDataset(index, resize="squash")[SampleKey(0, 3, (256, 320))]
        np.testing.assert_array_equal(sample, expected)
        torch.testing.assert_close(target.boxes, expected_target.boxes, rtol=0, atol=1e-3)
    mosaics = DetectionDataset(index, replace(still, mosaic_probability=1), resize="squash")
    for epoch in range(8):
        image, _ = mosaics[SampleKey(epoch, 3, (64, 96))]
        assert (image == 114).all(axis=2).mean() < 0.01


@pytest.mark.parametrize("size_hw", [(96, 128), (401, 514)], ids=["near", "reduced"])
@pytest.mark.parametrize("resize", ["letterbox", "squash"])
def test_cut_boxes_are_where_the_pixels_are(tmp_path: Path, resize: Resize, size_hw: tuple[int, int]) -> None:
    """All that a box covers is bright; what is bright without a box reaches the cut, its centre lay beyond."""
    write_split(tmp_path, "train", 6, size_hw=size_hw)
    dataset = DetectionDataset(read_split(tmp_path, "train"), ZOOMS, resize=resize)
    num_boxes = num_bright = num_unlabelled = 0
    square = np.ones((3, 3), np.uint8)
    for row in range(6):
        for epoch in range(12):
            image, target = dataset[SampleKey(epoch, row, (128, 128))]
            bright = (image[..., 0] > 127).astype(np.uint8)
            boxes = painted(target, (128, 128))
            assert (cv2.erode(boxes, square) <= bright).all()
            unlabelled = cv2.erode(bright, square) & ~boxes
            num_boxes, num_bright = num_boxes + len(target.boxes), num_bright + bright.sum()
            num_unlabelled += unlabelled.sum()
    assert num_boxes > 50
    assert 0 < num_unlabelled < 0.1 * num_bright


@pytest.mark.parametrize("side", [32, 640])
@pytest.mark.parametrize("size_hw", [(1, 1), (2, 900), (7, 5)], ids=str)
def test_tiny_and_thin_images(tmp_path: Path, size_hw: tuple[int, int], side: int) -> None:
    """Each a box as large as the image, shown larger than it was or not at all wide."""
    (tmp_path / "train").mkdir()
    (tmp_path / "annotations").mkdir()
    height, width = size_hw
    cv2.imwrite(str(tmp_path / "train" / "0.png"), np.full((*size_hw, 3), 200, np.uint8))
    document = {
        "images": [{"id": 1, "file_name": "0.png", "height": height, "width": width}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, width, height], "area": width * height}
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(document))
    index = read_split(tmp_path, "train")
    for resize in RESIZES:
        dataset = DetectionDataset(index, replace(STRONG, mosaic_probability=0, degrees=0, shear=0), resize=resize)
        for epoch in range(10):
            image, target = dataset[SampleKey(epoch, 0, (side, side))]
            assert image.shape == (side, side, 3)
            assert ((target.boxes >= 0) & (target.boxes <= side)).all()


def test_background_of_zoom_out(index: CocoIndex) -> None:
    """Black beside the image, whose colours alone are distorted; grey where the letterbox fills up."""
    settings = replace(
        ZOOMS, zoom_out_probability=1, iou_crop_probability=0, photometric_probability=1, channel_shuffle_probability=1
    )
    for epoch in range(5):
        squashed, _ = DetectionDataset(index, settings, resize="squash")[SampleKey(epoch, 0, HW)]
        assert not squashed.any()  # an image without boxes is black itself
        boxed, _ = DetectionDataset(index, settings)[SampleKey(epoch, 0, HW)]
        assert not boxed[:71].any() and (boxed[72:] == 114).all()  # 96 x 128 fits 96 x 96 as 72 x 96


def test_colours_of_each_image_are_distorted_on_their_own(tmp_path: Path) -> None:
    """Four images of one colour in a mosaic have several, and what is between them stays grey."""
    write_split(tmp_path, "train", 4)
    for path in (tmp_path / "train").iterdir():
        cv2.imwrite(str(path), np.full((96, 128, 3), (40, 90, 200), np.uint8))
    settings = replace(GEOMETRY_ONLY, scale=(0.5, 0.5), channel_shuffle_probability=1)
    dataset = DetectionDataset(read_split(tmp_path, "train"), settings)
    images = [dataset[SampleKey(epoch, 0, HW)][0] for epoch in range(5)]
    colours = [set(map(tuple, image.reshape(-1, 3).tolist())) for image in images]
    assert max(len(found) for found in colours) >= 4  # with the grey
    assert all((114, 114, 114) in found for found in colours)
    assert all(sorted(colour) in ([40, 90, 200], [114] * 3) for found in colours for colour in found)


def test_empty_images_are_zoomed_and_never_cut(index: CocoIndex) -> None:
    """Image 0 has a crowd region alone, of its lower left quarter; a crop needs an object."""
    for epoch in range(10):
        _, target = DetectionDataset(index, ZOOMS, resize="squash")[SampleKey(epoch, 0, HW)]
        [[x1, y1, x2, y2]] = target.crowd_boxes.tolist()
        assert len(target.boxes) == 0
        assert (x2 - x1) <= 48 and (y2 - y1) <= 48 and (x2 - x1) == pytest.approx(y2 - y1, abs=1.1)


def test_crowd_regions_are_cut_with_the_image(index: CocoIndex) -> None:
    """They stay as long as anything of them is seen, and choose no crop."""
    settings = replace(ZOOMS, zoom_out_probability=0, iou_crop_probability=1, flip_probability=0)
    counts = []
    for epoch in range(40):
        _, target = DetectionDataset(index, settings, resize="squash")[SampleKey(epoch, 5, HW)]
        assert len(target.boxes) >= 1
        assert ((target.crowd_boxes >= 0) & (target.crowd_boxes <= 96)).all()
        counts.append(len(target.crowd_boxes))
    assert set(counts) == {0, 1}


def test_draws_of_the_affine_are_in_their_order(index: CocoIndex) -> None:
    """The numbers of a sample's generator by hand: settings that are off take none of them."""
    settings = replace(GEOMETRY_ONLY, mosaic_probability=0, translate=0.2, flip_probability=0.5)
    flips = 0
    for epoch in range(8):
        _, target = DetectionDataset(index, settings, seed=9)[SampleKey(epoch, 5, (128, 128))]
        rng = stream(9, 1, epoch, 5)
        rng.random()  # mosaic
        scale = rng.uniform(0.5, 1.5)
        shift_x, shift_y = 128 * (0.5 + 0.2 * rng.uniform(-1, 1, 5)[3:])
        rng.random()  # mixup
        rng.uniform(-1, 1, 3)  # colour
        flipped, _ = rng.random(2) < 0.5
        boxes, _, crowd = index.boxes_of(5)
        expected = (boxes[~crowd] - (64, 48, 64, 48)) * scale + (shift_x, shift_y, shift_x, shift_y)
        if flipped:
            expected = ((128, 0, 128, 0) + expected * (-1, 1, -1, 1))[:, [2, 1, 0, 3]]
        expected = np.clip(expected, 0, 128)
        expected = expected[(expected[:, 2:] > expected[:, :2]).all(axis=1)]
        np.testing.assert_allclose(target.boxes, expected, atol=1.5)
        flips += flipped
    assert 0 < flips < 8


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
    seen = {row for row in range(len(index)) if any((row, reduce) in dataset.images.cache for reduce in (1, 2, 4, 8))}
    assert seen == set(range(len(index)))


@pytest.mark.parametrize(
    "settings", [GEOMETRY_ONLY, replace(ZOOMS, photometric_probability=1, channel_shuffle_probability=1)]
)
@pytest.mark.parametrize(("resize", "scale_xy"), [("letterbox", (0.5, 0.5)), ("squash", (0.5, 64 / 96))])
def test_the_last_epochs_are_plain(
    index: CocoIndex, settings: Augmentation, resize: Resize, scale_xy: tuple[float, float]
) -> None:
    settings = replace(settings, close_mosaic_epochs=2, flip_probability=1)
    dataset = DetectionDataset(index, settings, resize=resize, max_epochs=5)
    image, target = dataset[SampleKey(3, 5, (64, 64))]
    mirrored = Image.open(index.path(5)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if resize == "squash":
        expected = np.asarray(mirrored.resize((64, 64), Image.Resampling.BILINEAR))
    else:
        expected = np.full((64, 64, 3), 114, np.uint8)
        expected[:48] = cv2.resize(np.asarray(mirrored), (64, 48), interpolation=cv2.INTER_LINEAR)
    assert np.abs(image.astype(int) - expected).max() <= (1 if resize == "squash" else 0)
    boxes = np.array([[128 - 41, 9, 128 - 12, 43], [128 - 108, 20, 128 - 78, 45]])
    np.testing.assert_allclose(target.boxes, boxes * (scale_xy * 2), rtol=1e-6)
    assert target.scale_xy == scale_xy
    assert (dataset[SampleKey(2, 5, (64, 64))][0] != image).any()


def test_crowd_regions_follow(index: CocoIndex) -> None:
    settings = Augmentation(mosaic_probability=0, flip_probability=0, scale=(1, 1), translate=0, min_visible_frac=0)
    _, target = DetectionDataset(index, settings)[SampleKey(0, 1, (128, 128))]
    assert target.crowd_boxes.tolist() == [[0, 64, 64, 112]]  # an image of 96 x 128 in the middle of 128 x 128
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
    with pytest.raises(DataError, match=r"image 11: .*1\.png: .*max_unreadable=0 "):
        dataset[SampleKey(0, 1, HW)]
    error = dataset.__getitems__([SampleKey(0, 1, HW)])
    assert isinstance(error, DataError) and "image 11" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_image_that_changed_its_size(tmp_path: Path) -> None:
    write_split(tmp_path, "train", 1)
    dataset = DetectionDataset(read_split(tmp_path, "train"))
    cv2.imwrite(str(tmp_path / "train" / "0.png"), np.zeros((96, 127, 3), np.uint8))
    with pytest.raises(DataError, match=r"image 10: .*0\.png: its size is not 128 x 96 any more"):
        dataset[SampleKey(0, 0, HW)]


def test_the_next_image_replaces_an_unreadable_one(tmp_path: Path) -> None:
    """Rows 3, 4 and 8, the last, cannot be read: row 5 replaces the first two, and row 0 the last."""
    write_split(tmp_path, "train", 9)
    index = read_split(tmp_path, "train")
    settings = replace(GEOMETRY_ONLY, mosaic_probability=0)
    whole = DetectionDataset(index, replace(settings, flip_probability=0, scale=(1, 1), translate=0))
    drawn = DetectionDataset(index, settings, seed=4)
    damaged = DetectionDataset(index, settings, seed=4, max_unreadable=3)
    before = {row: drawn[SampleKey(2, row, HW)] for row in range(9)}
    (tmp_path / "train" / "3.png").unlink()
    (tmp_path / "train" / "4.png").write_bytes((tmp_path / "train" / "5.png").read_bytes()[:60])
    cv2.imwrite(str(tmp_path / "train" / "8.png"), np.zeros((96, 127, 3), np.uint8))
    for row, other in ((3, 5), (4, 5), (8, 0)):
        _, target = damaged[SampleKey(2, row, HW)]
        assert target.image_id == 10 + other
        own = whole[SampleKey(2, other, HW)][1]
        assert len(target.boxes) <= len(own.boxes)
    for row in (0, 1, 2, 5, 6, 7):
        assert_same(damaged[SampleKey(2, row, HW)], before[row])
    made = damaged.__getitems__([SampleKey(2, row, HW) for row in (3, 0, 8)])
    assert not isinstance(made, DataError)
    assert [(image.image_id, Path(image.file).name) for image in made[1]] == [
        (13, "3.png"),
        (14, "4.png"),
        (18, "8.png"),
    ]
    assert [image.reason for image in made[1]][::2] == [
        "cannot be read: No such file or directory",
        "its size is not 128 x 96 any more: the file was changed",
    ]


@pytest.mark.parametrize("settings", [GEOMETRY_ONLY, STRONG])
def test_replacement_images_are_the_images_of_a_set_that_has_them_twice(tmp_path: Path, settings: Augmentation) -> None:
    """Partners of a mosaic or mixup too: as if file and labels of the unreadable row were those of the next one."""
    write_split(tmp_path, "train", 7)
    index = read_split(tmp_path, "train")
    document = json.loads((tmp_path / "annotations" / "instances_train.json").read_text())
    document["images"][2]["file_name"] = "2b.png"
    shutil.copy(tmp_path / "train" / "3.png", tmp_path / "train" / "2b.png")
    kept = [note for note in document["annotations"] if note["image_id"] != 12]
    next_ones = [{**note, "image_id": 12, "id": 100 + note["id"]} for note in kept if note["image_id"] == 13]
    (tmp_path / "annotations" / "twice.json").write_text(json.dumps({**document, "annotations": kept + next_ones}))
    twice = DetectionDataset(load_index(tmp_path / "annotations" / "twice.json", tmp_path / "train"), settings)
    (tmp_path / "train" / "2.png").unlink()
    dataset = DetectionDataset(index, settings, max_unreadable=1)
    for key in [SampleKey(epoch, row, HW) for epoch in range(4) for row in range(7)]:
        image, target = dataset[key]
        expected, expected_target = twice[key]
        np.testing.assert_array_equal(image, expected)
        torch.testing.assert_close(target.boxes, expected_target.boxes, rtol=0, atol=0)
        assert target.image_id == expected_target.image_id or (key.row, target.image_id) == (2, 13)


def test_more_unreadable_images_than_allowed(tmp_path: Path) -> None:
    write_split(tmp_path, "train", 5)
    settings = replace(GEOMETRY_ONLY, mosaic_probability=0)
    dataset = DetectionDataset(read_split(tmp_path, "train"), settings, max_unreadable=2)
    for row in (0, 1, 2):
        (tmp_path / "train" / f"{row}.png").unlink()
    with pytest.raises(DataError, match=r"^3 images cannot be read .*\.max_unreadable=2; .*\n    image 10: .*0\.png"):
        dataset[SampleKey(0, 0, HW)]
    for row in (3, 4):
        (tmp_path / "train" / f"{row}.png").unlink()
    dataset.max_unreadable = 9
    with pytest.raises(
        DataError, match=r"^none of 5 training samples can be read any more; .*\n    image 10: .*0\.png"
    ):
        dataset[SampleKey(0, 0, HW)]


@pytest.mark.parametrize("fault", ["deleted", "written again"])
def test_a_cached_image_is_used_only_while_its_file_is_the_same(tmp_path: Path, fault: str) -> None:
    """Else the worker that has it would show it, and another one would not."""
    write_split(tmp_path, "train", 3)
    dataset = DetectionDataset(read_split(tmp_path, "train"), GEOMETRY_ONLY, cache_bytes=2**20, max_unreadable=1)
    for epoch in range(4):
        dataset[SampleKey(epoch, 1, HW)]
    path = tmp_path / "train" / "1.png"
    path.unlink()
    if fault == "written again":
        cv2.imwrite(str(path), np.zeros((90, 90, 3), np.uint8))
    assert dataset[SampleKey(3, 1, HW)][1].image_id == 12


def test_cache_keeps_what_was_used_last() -> None:
    cache = ImageCache(250)
    images = {row: np.full((10, 10), row, np.uint8) for row in range(3)}
    cache.put(0, 1, (5, 5), images[0])
    cache.put(1, 1, (5, 5), images[1])
    assert cache.get(0, 1, (5, 5)) is images[0] and cache.get(0, 2, (5, 5)) is None
    cache.put(2, 1, (5, 5), images[2])
    assert (1, 1) not in cache and cache.get(0, 1, (5, 5)) is images[0] and cache.get(2, 1, (5, 5)) is images[2]
    assert cache.num_bytes == 200
    cache.put(3, 1, (5, 5), np.zeros(251, np.uint8))
    assert (3, 1) not in cache and cache.num_bytes == 200
    assert cache.get(0, 1, (5, 6)) is None and (0, 1) not in cache and cache.num_bytes == 100
    with pytest.raises(ValueError, match="read-only"):
        images[0][0] = 1
