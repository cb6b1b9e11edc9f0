"""A root in YOLO's or VOC's format trains and is evaluated as one in COCO's, without conversion."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detkit.data import CocoDataModule
from detkit.data.augment import Augmentation
from detkit.data.checking.check import check_splits
from detkit.data.formats.layout import find_layout
from detkit.data.index.coco_index import load_index
from detkit.data.index.write_coco import convert
from detkit.errors import DataError
from tests.helpers.label_sets import voc_object, voc_xml, write_voc, write_yolo


def make_yolo(root: Path) -> None:
    write_yolo(root, {"a.png": "0 0.5 0.5 0.5 0.5\n1 0.25 0.5 0.2 0.4", "b.png": "1 0.5 0.5 1 1"})
    write_yolo(root, {"c.png": "0 0.5 0.25 0.5 0.5"}, "val")


def make_voc(root: Path) -> None:
    write_voc(root, {"a.png": voc_xml(voc_object("cat", (51, 26, 150, 75)), voc_object("dog", (31, 31, 70, 70)))})
    write_voc(root, {"b.png": voc_xml(voc_object("dog", (1, 1, 200, 100)))}, "trainval")  # train counts more
    write_voc(root, {"c.png": voc_xml(voc_object("cat", (51, 1, 150, 50)))}, "val")


@pytest.mark.parametrize("make", [make_yolo, make_voc])
def test_root_of_a_data_module(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "set")
    convert(tmp_path / "set", tmp_path / "coco")
    batches = []
    for root in ("set", "coco"):
        data = CocoDataModule(
            root=str(tmp_path / root),
            image_hw=(64, 64),
            batch_size=1,
            num_workers=0,
            augmentation=Augmentation(mosaic_probability=0.0),
        )
        data.setup("fit")
        assert data.class_names == ("cat", "dog")
        batches.append(([*data.train_dataloader()], [*data.val_dataloader()]))
        data.teardown("fit")
    assert len(batches[0][0]) == (2 if make is make_yolo else 1)
    for ours, theirs in zip(batches[0], batches[1], strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.targets.boxes, other.targets.boxes)
            assert torch.equal(one.targets.labels, other.targets.labels)
    [val] = batches[0][1]
    assert val.targets.boxes.tolist() == [[16, 0, 48, 16]]  # 200 x 100 to 64 x 32


@pytest.mark.parametrize("make", [make_yolo, make_voc])
def test_a_split_is_two_paths(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """As a stored recipe holds them, and as a user may name them; other splits' files decide as before."""
    make(tmp_path)
    split = find_layout(tmp_path)["val"]
    data = CocoDataModule(
        root=str(tmp_path),
        val_annotations=str(split.annotations.relative_to(tmp_path)),
        val_images=str(split.images),
        num_workers=0,
    )
    assert data.index("val").fingerprint == load_index(*split, tmp_path).fingerprint


@pytest.mark.parametrize("make", [make_yolo, make_voc])
def test_one_broken_split_keeps_no_other_from_its_check(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path)
    next(path for path in tmp_path.rglob("c.*") if path.suffix in (".txt", ".xml")).write_text("nothing of the kind")
    checked = check_splits(find_layout(tmp_path))
    assert checked["train"].index is not None
    assert checked["val"].index is None
    assert [finding.level for finding in checked["val"].report.findings][:1] == ["error"]


def test_a_folder_of_nothing_known(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"(?s)labels cannot be used:.*names of the classes are missing"):
        load_index(tmp_path / "labels", tmp_path / "images")
    (tmp_path / "classes.txt").write_text("cat")
    with pytest.raises(DataError, match="lists no images"):
        load_index(tmp_path / "labels", tmp_path / "images")
    with pytest.raises(DataError, match=r"(?s)nowhere cannot be used:.*No such file"):
        load_index(tmp_path / "nowhere", tmp_path / "images")
