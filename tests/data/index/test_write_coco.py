"""Conversion to COCO: the same boxes and the same AP, every image, and nothing left behind by what fails."""

import contextlib
import io
import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from detkit.data.formats.layout import find_layout
from detkit.data.index import write_coco
from detkit.data.index.coco_index import CocoIndex, load_index
from detkit.data.index.write_coco import convert
from detkit.errors import DataError, StorageError
from detkit.metrics import CocoMetric
from detkit.ops.targets import pack_targets
from tests.helpers.coco_files import detections_of, random_dataset, random_detections, targets_of
from tests.helpers.label_sets import voc_object, voc_xml, write_image, write_voc, write_yolo
from tests.reliability import forked

ONE = "0 0.5 0.5 0.1 0.1"


def read(root: Path, split: str = "train") -> CocoIndex:
    return load_index(*find_layout(root)[split], root)


def coco_as_yolo(document: dict[str, Any], images: Path, root: Path) -> None:
    """All that YOLO can say of a document, in digits enough to come back."""
    names = [category["name"] for category in sorted(document["categories"], key=lambda category: category["id"])]
    numbers = {category["id"]: names.index(category["name"]) for category in document["categories"]}
    root.mkdir(parents=True)
    (root / "data.yaml").write_text(json.dumps({"val": "images/val", "names": names}))
    (root / "labels/val").mkdir(parents=True)
    (root / "images/val").mkdir(parents=True)
    for image in document["images"]:
        os.link(images / image["file_name"], root / "images/val" / image["file_name"])
        lines = []
        for annotation in document["annotations"]:
            if annotation["image_id"] == image["id"]:
                x, y, width, height = annotation["bbox"]
                centre = ((x + width / 2) / image["width"], (y + height / 2) / image["height"])
                box = (*centre, width / image["width"], height / image["height"])
                lines.append(f"{numbers[annotation['category_id']]} {' '.join(f'{value:.12f}' for value in box)}\n")
        (root / "labels/val" / image["file_name"]).with_suffix(".txt").write_text("".join(lines))


def coco_as_voc(document: dict[str, Any], images: Path, root: Path) -> None:
    """A document of whole pixels; crowd boxes as difficult ones."""
    names = {category["id"]: category["name"] for category in document["categories"]}
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for image in document["images"]:
        os.link(images / image["file_name"], root / "JPEGImages" / image["file_name"])
        objects = []
        for annotation in document["annotations"]:
            if annotation["image_id"] == image["id"]:
                x, y, width, height = annotation["bbox"]
                difficult = f"<difficult>{annotation['iscrowd']}</difficult>"
                objects.append(
                    voc_object(names[annotation["category_id"]], (x + 1, y + 1, x + width, y + height), difficult)
                )
        size = f"<size><width>{image['width']}</width><height>{image['height']}</height></size>"
        (root / "Annotations" / image["file_name"]).with_suffix(".xml").write_text(voc_xml(*objects, size=size))
    stems = sorted(Path(image["file_name"]).stem for image in document["images"])
    (root / "ImageSets/Main/val.txt").write_text("\n".join(stems))


def whole_pixels(document: dict[str, Any], *, crowd: bool) -> dict[str, Any]:
    """Boxes on whole pixels inside of the image, with their own areas; images sorted as their names are."""
    boxes = []
    for annotation in document["annotations"]:
        x, y, width, height = (int(value) for value in annotation["bbox"])
        width, height = max(1, min(width, 600 - x)), max(1, min(height, 400 - y))
        flag = annotation["iscrowd"] if crowd else 0
        boxes.append({**annotation, "bbox": [x, y, width, height], "area": width * height, "iscrowd": flag})
    used = {box["category_id"] for box in boxes}
    categories = sorted((c for c in document["categories"] if c["id"] in used), key=lambda c: c["name"])
    numbered = {category["id"]: number for number, category in enumerate(categories, start=1)}
    images = [{**i, "file_name": f"{i['id']:04}.png"} for i in sorted(document["images"], key=lambda i: i["id"])]
    return {
        "images": images,
        "annotations": [{**box, "category_id": numbered[box["category_id"]]} for box in boxes],
        "categories": [{"id": numbered[c["id"]], "name": c["name"]} for c in categories],
    }


def boxes_by_image(index: CocoIndex) -> list[tuple[str, str, bool, list[float]]]:
    truth = index.ground_truth()
    rows = zip(truth.image_rows, truth.labels, truth.crowd, truth.boxes_xywh.tolist(), strict=True)
    found = [(index.path(row).name, truth.class_names[label], bool(crowd), box) for row, label, crowd, box in rows]
    return sorted(found, key=lambda row: (*row[:3], np.round(row[3], 4).tolist()))


def numbers_of(index: CocoIndex, found: dict[str, np.ndarray], targets_by_name: dict[str, Any]) -> dict[str, float]:
    metric = CocoMetric(index.ground_truth())
    names = [index.path(row).name for row in range(len(index))]
    targets = [targets_by_name[name]._replace(image_id=int(index.image_ids[row])) for row, name in enumerate(names)]
    by_id = {int(index.image_ids[row]): found[name] for row, name in enumerate(names) if name in found}
    metric.update(detections_of(by_id, index.image_ids.tolist()), pack_targets(targets))
    return {name: float(value) for name, value in metric.compute().items()} | metric.per_class()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("format_name", ["yolo", "voc"])
def test_round_trip_of_boxes_and_ap(tmp_path: Path, format_name: str, seed: int) -> None:
    """COCO, written in the other format, read there and converted back: equal boxes, equal AP at each step."""
    rng = np.random.default_rng(seed)
    document = whole_pixels(random_dataset(rng), crowd=format_name == "voc")
    while not document["annotations"]:
        document = whole_pixels(random_dataset(rng), crowd=format_name == "voc")
    origin = tmp_path / "origin"
    (origin / "val").mkdir(parents=True)
    (origin / "annotations").mkdir()
    for image in document["images"]:
        cv2.imwrite(str(origin / "val" / image["file_name"]), np.zeros((400, 600), np.uint8))
    (origin / "annotations/instances_val.json").write_text(json.dumps(document))
    {"yolo": coco_as_yolo, "voc": coco_as_voc}[format_name](document, origin / "val", tmp_path / "other")
    convert(tmp_path / "other", tmp_path / "back")

    first, other, back = (read(tmp_path / name, "val") for name in ("origin", "other", "back"))
    assert first.ground_truth().boxes_xywh.shape[0] > 0
    wanted = boxes_by_image(first)
    for index in (other, back):
        here = boxes_by_image(index)
        assert [row[:3] for row in here] == [row[:3] for row in wanted]
        np.testing.assert_allclose([row[3] for row in here], [row[3] for row in wanted], atol=1e-8)
    assert back.fingerprint == other.fingerprint

    names = {image["id"]: image["file_name"] for image in document["images"]}
    found = {names[image_id]: rows for image_id, rows in random_detections(rng, document).items()}
    targets = dict(zip(names.values(), targets_of(document).unpack(), strict=True))
    expected = numbers_of(first, found, targets)
    assert any(value > 0 for value in expected.values())
    assert numbers_of(other, found, targets) == numbers_of(back, found, targets) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["bccd", "aerial_cars", "coco_mini"])
def test_real_set_comes_back(tmp_path: Path, shared_data: Path, name: str) -> None:
    """Boxes over the edge by more than YOLO's rounding are left out first."""
    document = json.loads((shared_data / name / "annotations/instances_val.json").read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
    document["annotations"] = [
        {**annotation, "iscrowd": 0, "area": annotation["bbox"][2] * annotation["bbox"][3]}
        for annotation in document["annotations"]
        if _fits(annotation["bbox"], sizes[annotation["image_id"]])
    ]
    images = tmp_path / "origin/val"
    shutil.copytree(shared_data / name / "val", images)
    (tmp_path / "origin/annotations").mkdir()
    (tmp_path / "origin/annotations/instances_val.json").write_text(json.dumps(document))
    coco_as_yolo(document, images, tmp_path / "yolo")
    convert(tmp_path / "yolo", tmp_path / "coco")
    wanted, got = (boxes_by_image(read(tmp_path / root, "val")) for root in ("origin", "coco"))
    assert [row[:3] for row in got] == [row[:3] for row in wanted]
    assert len(got) > 100
    np.testing.assert_allclose([row[3] for row in got], [row[3] for row in wanted], atol=0.02)


def _fits(box: list[float], size_wh: tuple[int, int]) -> bool:
    (x, y, width, height), (image_width, image_height) = box, size_wh
    return x >= 0 and y >= 0 and x + width <= image_width and y + height <= image_height


def test_pycocotools_reads_it(tmp_path: Path) -> None:
    write_yolo(tmp_path / "yolo", {"a.png": "1 0.5 0.4 0.2 0.5\n0 0.25 0.25 0.5 0.5", "b.png": ""})
    write_yolo(tmp_path / "yolo", {"c.png": ONE}, "val")
    converted = convert(tmp_path / "yolo", tmp_path / "new/coco")
    assert [*converted.indices] == ["train", "val"]
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCO(str(tmp_path / "new/coco/annotations/instances_train.json"))
    assert judge.loadCats([0, 1]) == [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    assert judge.loadImgs([1, 2]) == [
        {"id": 1, "file_name": "a.png", "height": 100, "width": 200},
        {"id": 2, "file_name": "b.png", "height": 100, "width": 200},
    ]
    boxes = judge.loadAnns(judge.getAnnIds(imgIds=[1]))
    assert [(box["id"], box["category_id"], box["iscrowd"]) for box in boxes] == [(1, 1, 0), (2, 0, 0)]
    np.testing.assert_allclose([box["bbox"] for box in boxes], [[80, 15, 40, 50], [0, 0, 100, 50]])
    np.testing.assert_allclose([box["area"] for box in boxes], [2000, 5000])


def test_what_is_told(tmp_path: Path) -> None:
    difficult = "<difficult>1</difficult><truncated>1</truncated>"
    write_voc(tmp_path / "voc", {"a.png": voc_xml(voc_object("cat", (1, 1, 20, 20), difficult))})
    told = str(convert(tmp_path / "voc", tmp_path / "coco")).splitlines()
    assert told[0].startswith(f"train: {tmp_path}/voc/ImageSets/Main/train.txt: 1 images, 1 boxes, 1 classes (cat 1)")
    assert any(line.startswith("  difficult objects, neither object nor background") for line in told)
    assert any(line.endswith("which is not read: 1 (truncated 1 times)") for line in told)
    assert told[-1] == f"written to {tmp_path}/coco: train"
    [box] = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())["annotations"]
    assert (box["iscrowd"], box["bbox"]) == (1, [0, 0, 20, 20])


@pytest.mark.parametrize("images", ["link", "copy", "none"])
def test_images(tmp_path: Path, images: str) -> None:
    root = tmp_path / "yolo"
    write_yolo(root, {"deep/a.png": ONE, "b.png": None}, yaml="train: images/train\nnames: [cat]")
    (root / "images/train/b.png").unlink()
    write_image(root / "photos/b.png")
    (root / "images/train/b.png").symlink_to(root / "photos/b.png")
    convert(root, tmp_path / "coco", images)
    written = sorted(str(path.relative_to(tmp_path / "coco")) for path in (tmp_path / "coco").rglob("*.png"))
    assert written == ([] if images == "none" else ["train/b.png", "train/deep/a.png"])
    for name in written:
        new, old = tmp_path / "coco" / name, (root / "images" / name).resolve()
        assert not new.is_symlink()
        assert new.samefile(old) == (images == "link")
        assert new.read_bytes() == old.read_bytes()
    if images != "none":
        assert read(tmp_path / "coco").fingerprint == read(root).fingerprint


def test_links_out_of_the_source(tmp_path: Path) -> None:
    write_yolo(tmp_path / "yolo", {"a.png": ONE}, yaml="train: images/train\nnames: [cat]")
    (tmp_path / "yolo/images/train/a.png").rename(tmp_path / "a.png")
    (tmp_path / "yolo/images/train/a.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"symbolic link leads to.*: 1; .*follow_links=true"):
        convert(tmp_path / "yolo", tmp_path / "coco")
    convert(tmp_path / "yolo", tmp_path / "coco", follow_links=True)
    assert (tmp_path / "coco/train/a.png").samefile(tmp_path / "a.png")


def test_faults_of_all_splits(tmp_path: Path) -> None:
    write_yolo(tmp_path / "yolo", {"a.png": "7 0.5 0.5 0.1 0.1"})
    write_yolo(tmp_path / "yolo", {"b.png": "x"}, "val")
    with pytest.raises(DataError, match=r"(?s)train: .*a\.txt:1: '7 0\.5.*\nval: .*b\.txt:1: 'x'"):
        convert(tmp_path / "yolo", tmp_path / "coco")
    assert [path.name for path in tmp_path.iterdir()] == ["yolo"]


def test_splits_with_other_classes(tmp_path: Path) -> None:
    for split, names in (("train", "cat\ndog\n"), ("val", "dog\ncat\n")):
        write_image(tmp_path / "yolo" / split / "a.png")
        (tmp_path / "yolo" / split / "a.txt").write_text(ONE)
        (tmp_path / "yolo" / split / "classes.txt").write_text(names)
    with pytest.raises(DataError, match="class 0 is 'cat' in train and 'dog' in val; make them the same"):
        convert(tmp_path / "yolo", tmp_path / "coco")


def test_target_that_is_in_use(tmp_path: Path) -> None:
    root = tmp_path / "yolo"
    write_yolo(root, {"a.png": ONE})
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco/.notes").write_text("mine")
    with pytest.raises(DataError, match=r"target=.*/coco: exists already"):
        convert(root, tmp_path / "coco")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match=r"target=.*/file: exists already"):
        convert(root, tmp_path / "file")
    with pytest.raises(DataError, match=r"target=.*/yolo/new: lies inside source="):
        convert(root, root / "new")
    assert (tmp_path / "coco/.notes").read_text() == (tmp_path / "file").read_text() == "mine"
    (tmp_path / "coco/.notes").unlink()
    convert(root, tmp_path / "coco")  # an empty folder is no loss
    assert len(read(tmp_path / "coco")) == 1
    with pytest.raises(DataError, match=r"is in COCO format already; use it as it is, by data\.root="):
        convert(tmp_path / "coco", tmp_path / "again")


@pytest.mark.parametrize("broken", [OSError(28, "No space left on device", "x"), KeyboardInterrupt()])
def test_what_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: BaseException) -> None:
    write_yolo(tmp_path / "yolo", {"a.png": ONE})
    write_yolo(tmp_path / "yolo", {"b.png": ONE}, "val")
    calls = []

    def fail_at_the_second(number: int) -> None:
        calls.append(number)
        if len(calls) == 2:
            raise broken

    monkeypatch.setattr(write_coco.os, "fsync", fail_at_the_second)
    with pytest.raises((StorageError, KeyboardInterrupt)) as caught:
        convert(tmp_path / "yolo", tmp_path / "coco")
    if isinstance(broken, OSError):
        assert str(caught.value).endswith(
            "cannot be written: No space left on device (x); free space or choose another folder"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["yolo"]


def test_killed_at_any_file_operation(tmp_path: Path) -> None:
    """The target is whole or not there, and what lies beside it does not keep the next try from its work."""
    write_yolo(tmp_path / "yolo", {"a.png": ONE, "b.png": ONE})
    write_yolo(tmp_path / "yolo", {"c.png": ONE}, "val")
    target, steps = tmp_path / "new/coco", 0
    for steps in itertools.count():
        left = iter(range(steps))

        def step(_: str, named: tuple[object, ...], left: Iterator[int] = left) -> None:
            if f"{tmp_path}/new/" in str(named) and next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        ended = forked.run(
            lambda step=step: (sys.addaudithook(step), convert(tmp_path / "yolo", target)), tmp_path / "said"
        )
        if target.exists():
            break
        assert ended.code == 128 + signal.SIGKILL, ended.said
    assert steps > 10
    assert {name: read(target, name).fingerprint for name in ("train", "val")} == {
        name: read(tmp_path / "yolo", name).fingerprint for name in ("train", "val")
    }


def test_file_systems_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_yolo(tmp_path / "yolo", {"a.png": ONE})

    def refuse(source: str, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link", str(source), None, str(target))

    monkeypatch.setattr(write_coco.os, "link", refuse)
    with pytest.raises(StorageError, match=r"Invalid cross-device link \(.*a\.png\); use images=copy"):
        convert(tmp_path / "yolo", tmp_path / "coco")


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    write_yolo(tmp_path / "yolo", {"a.png": ONE})
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/coco: cannot be written: .*; free space or choose another folder"):
        convert(tmp_path / "yolo", tmp_path / "file/coco")
