"""Image folders: what they give, what they are refused for, and the demo folder."""

import hashlib
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from detkit.data.demo import class_folders as demo_folder
from detkit.data.demo import detection_set as demo
from detkit.data.demo.class_folders import default_demo_folder, make_demo_folder
from detkit.data.demo.scene import CLASS_NAMES
from detkit.data.formats.layout import find_layout
from detkit.data.images.decode import decode_image
from detkit.data.index import image_folder
from detkit.data.index.coco_index import load_index
from detkit.data.index.image_folder import check_same_folders, find_folders, read_folder
from detkit.errors import DataError
from tests.helpers.colour_set import COLOURS, write_folder


def test_index_by_hand(tmp_path: Path) -> None:
    index = read_folder(write_folder(tmp_path, "train", {"red": 2, "green": 3, "blue": 0}))
    assert index.class_names == ("blue", "green", "red")
    assert [str(index.path(row).relative_to(index.folder)) for row in range(len(index))] == [
        "green/000.png",
        "green/001.png",
        "green/002.png",
        "red/000.png",
        "red/001.png",
    ]
    assert index.labels.tolist() == [1, 1, 1, 2, 2]
    assert index.sizes_hw.tolist() == [[24, 40]] * 5
    assert index.counts().tolist() == [0, 3, 2]
    assert index.category_ids.tolist() == [0, 1, 2]
    for row, label in enumerate(index.labels):
        assert decode_image(index.path(row)).max(axis=(0, 1)).argmax() == list(COLOURS).index(index.class_names[label])


def test_report(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "train", {"red": 2, "blue": 0})
    (folder / "labels.txt").touch()
    assert str(read_folder(folder).report).split("\n  ") == [
        f"{folder}: 2 images, 2 classes (red 2, blue 0); 2 of 2 image headers read",
        "files beside the class folders, not read: 1 (labels.txt)",
        "class folders without images: 1 (blue)",
    ]


def test_hidden_files_are_ignored(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "train", {"red": 2})
    before = read_folder(folder)
    (folder / ".git").mkdir()
    (folder / ".DS_Store").touch()
    (folder / "red/.DS_Store").touch()
    after = read_folder(folder)
    assert (after.fingerprint, after.report, len(after)) == (before.fingerprint, before.report, 2)


def test_faults_are_gathered(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "train", {"red": 3})
    (folder / "red/000.png").write_bytes((folder / "red/000.png").read_bytes()[:60])
    (folder / "red/notes.txt").write_text("not a picture")
    (folder / "red/deeper").mkdir()
    with pytest.raises(DataError) as caught:
        read_folder(folder)
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert lines[0] == f"{folder} cannot be used:"
    assert lines[1].startswith("folders inside a class folder: 1;") and lines[2] == "red/deeper"
    assert lines[3] == "image files that cannot be read: 2; replace them, or remove their images"
    assert re.match(r"image 0: .*red/000\.png: the PNG is cut", lines[4])
    assert re.match(r"image 3: .*red/notes\.txt: not an image: it begins with b'not a pi'", lines[5])


def test_of_a_large_folder_a_sample_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path, "train", {"red": 9})
    (folder / "red/001.png").write_bytes(b"broken, and not in the sample")
    monkeypatch.setattr(image_folder, "MAX_HEADERS", 3)
    index = read_folder(folder)
    assert "3 of 9 image headers read" in index.report.summary
    assert np.flatnonzero(index.sizes_hw[:, 0]).tolist() == [0, 4, 8]


def test_no_images_at_all(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "train", {"red": 0, "blue": 0})
    with pytest.raises(DataError, match=r"class folders without images, and there are no others: 2; .*\n.*blue\n.*red"):
        read_folder(folder)


def test_no_class_folders(tmp_path: Path) -> None:
    (tmp_path / "image.jpg").touch()
    with pytest.raises(DataError, match=r"there are no class folders in it; an image folder holds train/<class>/"):
        read_folder(tmp_path)


def test_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone: cannot be listed: No such file"):
        read_folder(tmp_path / "gone")


def test_find(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder val; .* val/<class>/\*\.jpg.*This one holds: nothing"):
        find_folders(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "valid").mkdir()
    with pytest.raises(DataError, match=r"there is no folder val; .* This one holds: train/, valid/"):
        find_folders(tmp_path)
    (tmp_path / "val").mkdir()
    assert list(find_folders(tmp_path)) == ["train", "val"]
    with pytest.raises(DataError, match=r"nowhere: there is no such folder"):
        find_folders(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file: not a folder"):
        find_folders(tmp_path / "file")


def test_classes_must_agree(tmp_path: Path) -> None:
    train = read_folder(write_folder(tmp_path, "train", {"red": 1, "blue": 1}))
    val = read_folder(write_folder(tmp_path, "val", {"red": 1, "green": 1}))
    with pytest.raises(DataError, match="same class folders: 'blue' is only in train; 'green' is only in val; rename"):
        check_same_folders(train, val)
    check_same_folders(train, train)


def test_fingerprint_is_of_names_and_classes(tmp_path: Path) -> None:
    folders = {"a": {"red": 2, "blue": 1}, "b": {"red": 2, "blue": 1}, "c": {"red": 1, "blue": 1}}
    prints = {name: read_folder(write_folder(tmp_path, name, counts)).fingerprint for name, counts in folders.items()}
    assert prints["a"] == prints["b"] != prints["c"]


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(demo, "SPLITS", {"train": 6, "val": 3})
    return tmp_path / "scenes"


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [str(path.relative_to(folder)).encode() + path.read_bytes() for path in files]
    return hashlib.sha256(b"".join(names)).hexdigest()


def test_demo_folder(tmp_path: Path, scenes: Path) -> None:
    """As many images of each class as the demo set has boxes that are large enough; twice the same."""
    folder = make_demo_folder(tmp_path / "deep/images", scenes)
    for name, split in find_layout(scenes).items():
        boxes = load_index(*split)
        large = ((boxes.boxes[:, 2:] - boxes.boxes[:, :2]).min(axis=1) >= 12) & ~boxes.crowd
        index = read_folder(folder / name)
        assert set(index.class_names) == set(CLASS_NAMES)
        expected = {label: int((boxes.labels[large] == number).sum()) for number, label in enumerate(boxes.class_names)}
        assert dict(zip(index.class_names, index.counts().tolist(), strict=True)) == expected
        assert index.sizes_hw.tolist() == [[32, 32]] * len(index)
    assert digest(make_demo_folder(tmp_path / "again", scenes)) == digest(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "deep", "scenes"]  # no draft is left


def test_demo_images_show_their_boxes(tmp_path: Path, scenes: Path) -> None:
    """Searched for in its scene, an image is found around the box that it is named after."""
    make_demo_folder(tmp_path / "images", scenes)
    boxes = load_index(*find_layout(scenes)["train"])
    image_rows = np.repeat(np.arange(len(boxes)), np.diff(boxes.offsets))
    rows = np.flatnonzero(((boxes.boxes[:, 2:] - boxes.boxes[:, :2]).min(axis=1) >= 12) & ~boxes.crowd)
    assert len(rows) > 10
    for number, row in enumerate(rows):
        [path] = (tmp_path / "images/train").glob(f"*/{number:06d}.png")
        assert path.parent.name == boxes.class_names[boxes.labels[row]]
        scene = decode_image(boxes.path(image_rows[row]))
        x1, y1, x2, y2 = boxes.boxes[row]
        side = min(round(1.2 * max(x2 - x1, y2 - y1)), *scene.shape[:2])  # a tenth of margin on each side
        whole = cv2.resize(decode_image(path), (side, side), interpolation=cv2.INTER_LINEAR)
        *_, (left, top), _ = cv2.minMaxLoc(cv2.matchTemplate(scene, whole, cv2.TM_SQDIFF))
        assert left <= x1 + 2 and top <= y1 + 2 and left + side >= x2 - 2 and top + side >= y2 - 2


def test_a_complete_demo_folder_is_reused(tmp_path: Path, scenes: Path) -> None:
    folder = make_demo_folder(tmp_path / "images", scenes)
    shutil.rmtree(scenes)
    assert make_demo_folder(folder, scenes) == folder
    assert not scenes.exists()


def test_other_things_are_not_overwritten(tmp_path: Path, scenes: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/mine.txt").touch()
    with pytest.raises(DataError, match="images: not the demo image folder of this version; remove it"):
        make_demo_folder(tmp_path / "images", scenes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "scenes"]


def test_a_faster_process_wins(tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, other, write = tmp_path / "images", make_demo_folder(tmp_path / "other", scenes), demo_folder._write

    def write_slowly(draft: Path, scenes: Path) -> None:
        write(draft, scenes)
        shutil.copytree(other, folder)

    monkeypatch.setattr(demo_folder, "_write", write_slowly)
    assert make_demo_folder(folder, scenes) == folder
    assert digest(folder) == digest(other)


def test_a_place_that_cannot_be_written(tmp_path: Path, scenes: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/images: the demo image folder cannot be written there: .*; set DETKIT"):
        make_demo_folder(tmp_path / "file/images", scenes)


def test_where_the_demo_folder_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETKIT_DEMO", str(tmp_path / "here"))
    assert default_demo_folder() == tmp_path / "here-crops-v1"
