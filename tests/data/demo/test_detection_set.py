"""The demo set is whole, the same each time, and its boxes are exact."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from detkit.data.demo import detection_set as demo
from detkit.data.demo import scene as demo_scene
from detkit.data.demo.detection_set import default_demo_root, make_demo
from detkit.data.demo.scene import CLASS_NAMES, Scene, draw_scene
from detkit.data.formats.layout import find_layout
from detkit.data.images.decode import decode_image
from detkit.data.index.coco_index import load_index
from detkit.errors import DataError

FEW = {"train": 3, "val": 1}


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SPLITS", FEW)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(rng(8, row)) for row in range(30)]


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


def rng(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(list(key)))


@pytest.mark.usefixtures("few_images")
def test_written_set_is_a_valid_coco_set(tmp_path: Path) -> None:
    folder = make_demo(tmp_path / "deep/demo")
    layout = find_layout(folder)
    assert list(layout) == ["train", "val"]
    for number, (name, count) in enumerate(FEW.items()):
        index = load_index(*layout[name])
        assert len(index) == count
        assert index.class_names == CLASS_NAMES
        for row in range(count):
            scene = draw_scene(rng(number, row))
            boxes, labels, crowd = index.boxes_of(row)
            assert boxes.tolist() == scene.boxes.tolist()
            assert labels.tolist() == scene.labels.tolist()
            assert crowd.tolist() == scene.crowd.tolist()
            image = decode_image(index.path(row)).astype(int)
            assert np.abs(image - scene.image).mean() < 6  # the loss of JPEG


@pytest.mark.usefixtures("few_images")
def test_twice_the_same(tmp_path: Path) -> None:
    assert digest(make_demo(tmp_path / "a")) == digest(make_demo(tmp_path / "b"))


@pytest.mark.usefixtures("few_images")
def test_a_complete_set_is_reused(tmp_path: Path) -> None:
    folder = make_demo(tmp_path / "demo")
    (folder / "train/000000.jpg").write_bytes(b"kept")
    assert make_demo(tmp_path / "demo") == folder
    assert (folder / "train/000000.jpg").read_bytes() == b"kept"
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]  # nothing is left of the draft


@pytest.mark.parametrize("label", range(len(CLASS_NAMES)))
def test_boxes_are_tight(label: int) -> None:
    """On a black bench, where a shadow cannot be seen, what is bright is the part."""
    bench = demo_scene._Bench(np.zeros((200, 220, 3), dtype=np.float32), light=1.0)
    demo_scene._place(bench, rng(label), label, length=70.0)
    scene = demo_scene._truth(bench, bench.image, heap_parts=0)
    ys, xs = np.nonzero(bench.image.max(axis=2) > 12)
    seen = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert np.abs(scene.boxes[0] - seen).max() <= 1
    assert scene.labels.tolist() == [label]
    assert 45 <= max(scene.boxes[0, 2:] - scene.boxes[0, :2]) <= 80  # the length is measured along the part


def test_scenes_are_varied(scenes: list[Scene]) -> None:
    """Some empty, some with a heap, all classes about equally often, sizes over a factor of six."""
    labels = np.concatenate([scene.labels for scene in scenes])
    boxes = np.concatenate([scene.boxes for scene in scenes])
    areas = np.concatenate([scene.areas for scene in scenes])
    sizes = boxes[:, 2:] - boxes[:, :2]
    assert (areas <= sizes.prod(axis=1)).all() and (areas >= 20).all()
    assert sizes.max() > 6 * sizes.max(axis=1).min()
    assert np.bincount(labels, minlength=len(CLASS_NAMES)).min() > 0.1 * len(labels)
    assert any(len(scene.labels) == 0 for scene in scenes)
    assert any(scene.crowd.any() for scene in scenes)
    assert len({scene.image.shape for scene in scenes}) > 15
    for scene in scenes:
        height, width = scene.image.shape[:2]
        assert (scene.boxes >= 0).all() and (scene.boxes <= (width, height, width, height)).all()


def test_colour_does_not_give_the_class_away(scenes: list[Scene]) -> None:
    """The mean colours of the classes are closer to each other than the parts of one class are."""
    colours: dict[int, list[np.ndarray]] = {label: [] for label in range(len(CLASS_NAMES))}
    for scene in scenes:
        for (x1, y1, x2, y2), label in zip(scene.boxes, scene.labels, strict=True):
            colours[int(label)].append(scene.image[y1:y2, x1:x2].reshape(-1, 3).mean(axis=0))
    means = np.stack([np.mean(of_class, axis=0) for of_class in colours.values()])
    within = np.mean([np.std(of_class, axis=0).mean() for of_class in colours.values()])
    assert means.std(axis=0).mean() < 0.5 * within


@pytest.mark.usefixtures("few_images")
def test_other_things_are_not_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "mine.txt").touch()
    with pytest.raises(DataError, match="demo: not the demo set of this version"):
        make_demo(folder)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


@pytest.mark.usefixtures("few_images")
def test_a_set_of_another_version_is_refused(tmp_path: Path) -> None:
    folder = make_demo(tmp_path / "demo")
    (folder / "demo.json").write_text(json.dumps({"version": 0}))
    with pytest.raises(DataError, match="not the demo set of this version; remove it"):
        make_demo(folder)


@pytest.mark.usefixtures("few_images")
def test_a_faster_process_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process puts the set in place while this one draws."""
    folder, other, write = tmp_path / "demo", make_demo(tmp_path / "other"), demo._write

    def write_slowly(draft: Path) -> None:
        write(draft)
        shutil.copytree(other, folder)

    monkeypatch.setattr(demo, "_write", write_slowly)
    assert make_demo(folder) == folder
    assert digest(folder) == digest(other)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/demo: the demo set cannot be written there: .*; set DETKIT_DEMO"):
        make_demo(tmp_path / "file/demo")


def test_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DETKIT_DEMO", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_demo_root() == tmp_path / ".cache/detkit/demo-v1"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_demo_root() == tmp_path / "cache/detkit/demo-v1"
    monkeypatch.setenv("DETKIT_DEMO", "~/here")
    assert default_demo_root() == tmp_path / "here"


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_as_python_does() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("DETKIT_DEMO", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", raise_as_python_does)
    with pytest.raises(DataError, match="no home folder for the demo set; set DETKIT_DEMO"):
        default_demo_root()
