"""Each layout in use is found by its names; what is looked for is said where none is."""

from pathlib import Path

import pytest

from detkit.data.formats.layout import Split, find_layout
from detkit.errors import DataError


def build(root: Path, *files: str) -> None:
    """Empty annotation files and image folders (which end in a slash)."""
    for name in files:
        if name.endswith("/"):
            (root / name).mkdir(parents=True, exist_ok=True)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ["annotations/instances_train2017.json", "annotations/instances_val2017.json", "train2017/", "val2017/"],
            {
                "train": ("annotations/instances_train2017.json", "train2017"),
                "val": ("annotations/instances_val2017.json", "val2017"),
            },
        ),
        (
            ["annotations/instances_train2017.json", "images/train2017/"],
            {"train": ("annotations/instances_train2017.json", "images/train2017")},
        ),
        (
            [f"annotations/instances_{split}.json" for split in ("train", "val", "test")] + ["train/", "val/", "test/"],
            {split: (f"annotations/instances_{split}.json", split) for split in ("train", "val", "test")},
        ),
        (
            [f"{split}/_annotations.coco.json" for split in ("train", "valid", "test")],
            {
                "train": ("train/_annotations.coco.json", "train"),
                "val": ("valid/_annotations.coco.json", "valid"),
                "test": ("test/_annotations.coco.json", "test"),
            },
        ),
        (["annotations/instances_val.json", "val/"], {"val": ("annotations/instances_val.json", "val")}),
    ],
)
def test_layouts(tmp_path: Path, files: list[str], expected: dict[str, tuple[str, str]]) -> None:
    build(tmp_path, *files)
    assert find_layout(tmp_path) == {
        name: Split(tmp_path / annotations, tmp_path / images) for name, (annotations, images) in expected.items()
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ["labels/train/", "images/train/", "labels/val/", "images/val/", "images/test/"],
            {"train": ("labels/train", "images/train"), "val": ("labels/val", "images/val")},
        ),
        (
            ["train/labels/", "train/images/", "valid/labels/", "valid/images/"],
            {"train": ("train/labels", "train/images"), "val": ("valid/labels", "valid/images")},
        ),
        (["train/classes.txt", "val/classes.txt"], {"train": ("train", "train"), "val": ("val", "val")}),
        (
            [f"ImageSets/Main/{name}.txt" for name in ("train", "trainval", "val", "test")]
            + ["Annotations/", "JPEGImages/"],
            {split: (f"ImageSets/Main/{split}.txt", "JPEGImages") for split in ("train", "val", "test")},
        ),
        (
            ["ImageSets/Main/trainval.txt", "ImageSets/Main/test.txt", "Annotations/", "JPEGImages/"],
            {
                "train": ("ImageSets/Main/trainval.txt", "JPEGImages"),
                "test": ("ImageSets/Main/test.txt", "JPEGImages"),
            },
        ),
        (["Annotations/", "JPEGImages/"], {"train": ("Annotations", "JPEGImages")}),
        (["train/a.xml", "valid/a.xml"], {"train": ("train", "train"), "val": ("valid", "valid")}),
        (  # COCO first
            ["train/_annotations.coco.json", "train/a.xml", "valid/a.xml", "labels/train/", "images/train/"],
            {"train": ("train/_annotations.coco.json", "train")},
        ),
    ],
)
def test_layouts_of_yolo_and_voc(tmp_path: Path, files: list[str], expected: dict[str, tuple[str, str]]) -> None:
    build(tmp_path, *files)
    assert find_layout(tmp_path) == {
        name: Split(tmp_path / annotations, tmp_path / images) for name, (annotations, images) in expected.items()
    }


def test_data_yaml(tmp_path: Path) -> None:
    """Names are relative to the folder of a split, or to the root where there are several; absent ones are left out."""
    build(tmp_path, "a/images/", "b/", "c/")
    (tmp_path / "pets.yaml").write_text("train: [b, c]\nval: a/images\ntest: d\nnames: [cat]\n")
    (tmp_path / "compose.yaml").write_text("services: {web: {names: [a]}}\n")  # another program's
    assert find_layout(tmp_path) == {
        "train": Split(tmp_path / "pets.yaml/train", tmp_path),
        "val": Split(tmp_path / "pets.yaml/val", tmp_path / "a/images"),
    }
    (tmp_path / "data.yaml").write_text("train: c\nnames: [cat]\n")  # the usual name counts more
    assert find_layout(tmp_path) == {"train": Split(tmp_path / "data.yaml/train", tmp_path / "c")}
    (tmp_path / "data.yaml").write_text("train: d\nval: ../e\nnames: [cat]\n")
    with pytest.raises(DataError, match=r"nothing that it names is in .* \(train: d; val: \.\./e\); correct path"):
        find_layout(tmp_path)


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    build(tmp_path / "my data", "train/_annotations.coco.json")
    assert find_layout("~/my data")["train"].images == tmp_path / "my data/train"


def test_no_layout_says_what_is_there(tmp_path: Path) -> None:
    build(tmp_path, "annotations/instances_train.json", "notes.txt")  # the images are missing
    with pytest.raises(DataError) as caught:
        find_layout(tmp_path)
    assert "annotations/instances_train.json with train/" in str(caught.value)
    assert "YOLO: data.yaml" in str(caught.value) and "Annotations/ with JPEGImages/" in str(caught.value)
    assert "The folder holds: annotations/, notes.txt" in str(caught.value)


def test_crowded_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="The folder holds: nothing"):
        find_layout(tmp_path)
    build(tmp_path, *(f"{number:02d}.txt" for number in range(20)))
    with pytest.raises(DataError, match=r"11\.txt, and 8 more"):
        find_layout(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    (tmp_path / "my_data").mkdir()
    with pytest.raises(DataError, match=r"my_dta: there is no such folder; did you mean '.*my_data'\?"):
        find_layout(tmp_path / "my_dta")
    with pytest.raises(DataError, match="nowhere: there is no such folder"):
        find_layout(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file: not a folder"):
        find_layout(tmp_path / "file")
