"""Crops of boxes: which there are, where they lie, and what is said of those that are left out."""

from pathlib import Path

import numpy as np
import pytest

from detkit.data.index.coco_index import load_index
from detkit.data.index.crops import crop_regions
from detkit.data.index.regions import RegionIndex
from detkit.data.loading.region_dataset import RegionDataset
from detkit.data.loading.sampler import SampleKey
from detkit.errors import DataError
from tests.helpers.colour_set import COLOURS, write_coco


def crops_of(root: Path, margin: float = 0.1, min_box_px: float = 8) -> RegionIndex:
    file = root / "annotations/instances_train.json"
    return crop_regions(load_index(file, root / "train"), file, margin, min_box_px)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    write_coco(folder, "train")
    return folder


def test_regions_by_hand(root: Path) -> None:
    """Box (10, 20)-(50, 50) with a tenth of 40 x 30 on each side; the green one is cut at the image's edge."""
    crops = crops_of(root)
    assert crops.regions is not None
    assert crops.regions.tolist() == [[6, 17, 54, 53], [94, 0, 160, 55], [25, 25, 85, 85]]
    assert [crops.class_names[label] for label in crops.labels] == ["red", "green", "blue"]
    assert [crops.path(row).name for row in crops.image_rows] == ["20.png", "20.png", "21.png"]
    assert crops.category_ids.tolist() == [3, 7, 8]
    assert crops.counts().tolist() == [1, 1, 1]


def test_a_fraction_of_a_pixel_reaches_outwards(tmp_path: Path) -> None:
    write_coco(tmp_path, "train", {20: [("red", (10, 20, 41, 33), 0)]})
    crops = crops_of(tmp_path, margin=0.05)  # 2.05 and 1.65 pixels
    assert crops.regions is not None and crops.regions.tolist() == [[7, 18, 54, 55]]


def test_what_is_left_out_is_counted(root: Path) -> None:
    crops = crops_of(root)
    assert str(crops.report).split("\n  ") == [
        "3 crops of 3 classes (red 1, green 1, blue 1)",
        "crowd boxes, of which no crop is made: 1",
        "boxes narrower or lower than 8 px, of which no crop is made: 1 (20.png 4 x 30)",
    ]
    assert len(crops_of(root, min_box_px=4)) == 4


def test_a_class_that_is_left_out_is_named(root: Path) -> None:
    assert "classes whose boxes are all left out: 1 (red)" in str(crops_of(root, min_box_px=40).report)


def test_no_box_is_left(root: Path) -> None:
    message = r"instances_train\.json: none of its 5 boxes makes a crop: 1 are crowd .* 4 are narrower .* than 200 px"
    with pytest.raises(DataError, match=message):
        crops_of(root, min_box_px=200)


def test_pixels_of_a_crop(root: Path) -> None:
    """Without a margin a crop holds nothing but its box."""
    crops = RegionDataset(crops_of(root, margin=0))
    for row, colour in enumerate(("red", "green", "blue")):
        image, target = crops[SampleKey(0, row, (20, 20))]
        height = (15, 16, 20)[row]  # 40 x 30, 60 x 50 and 50 x 50 pixels in 20 x 20
        np.testing.assert_array_equal(image[:height], np.broadcast_to(COLOURS[colour], (height, 20, 3)))
        np.testing.assert_array_equal(image[height:], np.full((20 - height, 20, 3), 114))
        assert (int(target.label), target.image_id) == (row, row)
