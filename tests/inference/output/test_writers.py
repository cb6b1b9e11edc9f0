"""Files of results against what was found: read back by other programs, and under names that never collide."""

import csv
import io
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from detkit.errors import DataError, StorageError
from detkit.inference import ImageDetections
from detkit.inference.input.sources import ImageFile, Source
from detkit.inference.input.video import Camera, Frame, VideoFile
from detkit.inference.output import writers as outputs
from detkit.inference.output.coco_ids import ids_of_annotations, ids_of_detector
from detkit.inference.output.writers import make_folder, open_outputs, output_names

CLASSES = ("cat", "dog", "Gänse, grau")
BOXES = [[0.0, 0.0, 20.0, 10.0], [5.5, 2.25, 15.5, 8.25], [1.0, 1.0, 2.0, 2.0]]
GREY = 120
OWN_IDS = ids_of_detector(CLASSES, [1, 2, 3])


def frame_of(name: str, number: int | None = None, size_hw: tuple[int, int] = (40, 80)) -> Frame:
    image = np.full((*size_hw, 3), GREY, np.uint8)
    return Frame(image, name, number, None if number is None else number / 25, 25.0)


def found_in(frame: Frame, count: int = 3) -> ImageDetections:
    labels, scores = np.array([1, 0, 2])[:count], np.array([0.875, 0.5, 0.1], np.float32)[:count]
    height, width = frame.image.shape[:2]
    return ImageDetections(np.array(BOXES, np.float32)[:count], scores, labels, CLASSES, (height, width))


def write(folder: Path, save: str, *frames: tuple[Frame, int]) -> Path:
    names = list(dict.fromkeys(frame.name for frame, _ in frames))
    with open_outputs(folder, [save], names, CLASSES, OWN_IDS) as [output]:
        for frame, count in frames:
            output.add(frame, found_in(frame, count))
    return folder


def read_picture(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert picture is not None
    return picture.astype(int)


def write_annotations(path: Path, names: list[str], categories: dict[int, str]) -> Path:
    images = [{"id": 7 * n, "file_name": name, "height": 40, "width": 80} for n, name in enumerate(names)]
    listed = [{"id": number, "name": name} for number, name in categories.items()]
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": listed}))
    return path


def images_of(*paths: str) -> list[Source]:
    return [ImageFile(Path(path), Path(path).name) for path in paths]


def test_csv(tmp_path: Path) -> None:
    write(tmp_path, "csv", (frame_of("a/b,c.jpg"), 2), (frame_of("d.jpg"), 0), (frame_of("e.mp4", 12), 3))
    rows = list(csv.reader(io.StringIO((tmp_path / "predictions.csv").read_text(encoding="utf-8"))))
    assert rows == [
        ["file", "frame", "label", "name", "score", "x1", "y1", "x2", "y2"],
        ["a/b,c.jpg", "", "1", "dog", "0.875", "0.0", "0.0", "20.0", "10.0"],
        ["a/b,c.jpg", "", "0", "cat", "0.5", "5.5", "2.25", "15.5", "8.25"],
        ["e.mp4", "12", "1", "dog", "0.875", "0.0", "0.0", "20.0", "10.0"],
        ["e.mp4", "12", "0", "cat", "0.5", "5.5", "2.25", "15.5", "8.25"],
        ["e.mp4", "12", "2", "Gänse, grau", "0.1", "1.0", "1.0", "2.0", "2.0"],
    ]


def test_coco_is_read_by_pycocotools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = (frame_of("a/b.jpg"), 2), (frame_of("empty.jpg"), 0), (frame_of("e.mp4", 12, (20, 30)), 3)
    write(tmp_path, "coco", *frames)
    truth = COCO(str(tmp_path / "images.json"))
    results = truth.loadRes(str(tmp_path / "predictions.json"))
    capsys.readouterr()  # pycocotools prints
    assert truth.loadCats([1, 2, 3]) == [{"id": n, "name": name} for n, name in enumerate(CLASSES, start=1)]
    assert truth.loadImgs([1, 2, 3]) == [
        {"id": 1, "file_name": "a/b.jpg", "height": 40, "width": 80},
        {"id": 2, "file_name": "empty.jpg", "height": 40, "width": 80},
        {"id": 3, "file_name": "e.mp4/000012", "height": 20, "width": 30, "frame": 12, "time_s": 0.48},
    ]
    rows: Any = results.anns.values()
    found = [(row["image_id"], row["category_id"], row["bbox"], row["score"]) for row in rows]
    assert found[:2] == [(1, 2, [0.0, 0.0, 20.0, 10.0], 0.875), (1, 1, [5.5, 2.25, 10.0, 6.0], 0.5)]
    assert [image_id for image_id, *_ in found] == [1, 1, 3, 3, 3]


def test_coco_without_any_detection_is_json(tmp_path: Path) -> None:
    write(tmp_path, "coco", (frame_of("a.jpg"), 0))
    assert json.loads((tmp_path / "predictions.json").read_text()) == []
    assert len(json.loads((tmp_path / "images.json").read_text())["images"]) == 1


def test_coco_ids_of_an_annotation_file(tmp_path: Path) -> None:
    """By the longest end of the path that is listed; classes by name, those without a category are left out."""
    listed = ["x/a.jpg", "a.jpg", "b.jpg", "c.jpg"]
    file = write_annotations(tmp_path / "a.json", listed, {90: "dog", 3: "bird", 5: "cat"})
    ids = ids_of_annotations(file, images_of("/data/b.jpg", "/data/x/a.jpg"), CLASSES)
    assert ids.image_ids == {"b.jpg": 14, "a.jpg": 0}
    assert ids.unknown == ["Gänse, grau"]
    with open_outputs(tmp_path, ["coco"], ["b.jpg", "a.jpg"], CLASSES, ids) as [output]:
        for name in ("b.jpg", "a.jpg"):
            output.add(frame_of(name), found_in(frame_of(name)))
    rows = json.loads((tmp_path / "predictions.json").read_text())
    assert [(row["image_id"], row["category_id"]) for row in rows] == [(14, 90), (14, 5), (0, 90), (0, 5)]
    assert not (tmp_path / "images.json").exists()


@pytest.mark.parametrize(
    ("sources", "categories", "message"),
    [
        (images_of("/d/a.jpg", "/d/z.jpg"), {1: "cat"}, r"sources that are not in this file: 1; .*\n +z\.jpg"),
        (
            [VideoFile(Path("/d/a.mp4"), "a.mp4"), Camera(0)],
            {1: "cat"},
            r"not in this file: 2;.*\n +a\.mp4\n +cam",
        ),
        (
            images_of("/d/a.jpg", "/e/a.jpg"),
            {1: "cat"},
            r"images with two sources: 1;.*\n +a\.jpg and a\.jpg are image 0",
        ),
        (images_of("/d/a.jpg"), {1: "car"}, r"none of which is in this file: 3\n +cat"),
    ],
)
def test_annotation_file_that_does_not_fit(
    tmp_path: Path, sources: list[Source], categories: dict[int, str], message: str
) -> None:
    file = write_annotations(tmp_path / "a.json", ["a.jpg"], categories)
    with pytest.raises(DataError, match=message):
        ids_of_annotations(file, sources, CLASSES)


def test_yolo_txt(tmp_path: Path) -> None:
    write(tmp_path, "yolo", (frame_of("a/b.jpg"), 2), (frame_of("d.png"), 0), (frame_of("e.mp4", 12), 1))
    assert (tmp_path / "labels" / "a" / "b.txt").read_text() == (
        "1 0.125000 0.125000 0.250000 0.250000 0.875000\n0 0.131250 0.131250 0.125000 0.150000 0.500000\n"
    )
    assert (tmp_path / "labels" / "d.txt").read_text() == ""
    assert (tmp_path / "labels" / "e.mp4" / "000012.txt").read_text().startswith("1 0.125")
    assert (tmp_path / "classes.txt").read_text(encoding="utf-8").splitlines() == list(CLASSES)


def test_pictures_show_the_boxes_at_the_place_of_their_source(tmp_path: Path) -> None:
    frame = frame_of("a/b.png", size_hw=(200, 300))
    write(tmp_path, "pictures", (frame, 1), (frame_of("c.jpg"), 0))
    picture = read_picture(tmp_path / "pictures" / "a" / "b.jpg")
    difference = np.abs(picture - found_in(frame, 1).draw(frame.image)).mean()
    assert difference < 3  # of JPEG
    assert np.abs(picture - GREY).max() > 60  # there is something drawn
    assert np.abs(read_picture(tmp_path / "pictures" / "c.jpg") - GREY).max() <= 2


def test_each_video_becomes_a_video(tmp_path: Path) -> None:
    frames = [frame_of(name, number) for name, count in (("a.avi", 3), ("x/a.mp4", 5)) for number in range(count)]
    write(tmp_path, "pictures", *((frame, 0) for frame in frames))
    for name, count in (("a.mp4", 3), ("x/a.mp4", 5)):
        written = list(VideoFile(tmp_path / "pictures" / name, name).frames())
        assert len(written) == count
        assert written[0].fps == 25
        assert all(np.abs(frame.image.astype(int) - GREY).mean() < 5 for frame in written)


def test_the_video_of_a_camera_keeps_its_times(tmp_path: Path) -> None:
    frames = [frame_of("camera_0.mp4", number)._replace(time_s=float(number), is_live=True) for number in range(3)]
    write(tmp_path, "pictures", *((frame, 0) for frame in frames))
    assert VideoFile(tmp_path / "pictures" / "camera_0.mp4", "").length == pytest.approx(2 * 25, abs=1)


def test_picture_too_long_for_jpeg_is_shrunk(tmp_path: Path) -> None:
    write(tmp_path, "pictures", (frame_of("a.png", size_hw=(20, 65_600)), 0))
    assert read_picture(tmp_path / "pictures" / "a.jpg").shape == (19, 65_500, 3)


def test_what_was_written_before_an_error_is_whole(tmp_path: Path) -> None:
    def interrupted() -> None:
        with open_outputs(tmp_path, ["coco", "csv"], ["a.jpg"], CLASSES, OWN_IDS) as both:
            for output in both:
                output.add(frame_of("a.jpg"), found_in(frame_of("a.jpg")))
            sys.exit(130)

    with pytest.raises(SystemExit):
        interrupted()
    assert len(json.loads((tmp_path / "predictions.json").read_text())) == 3
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize("writes", [1, 2])
def test_coco_is_read_by_pycocotools_wherever_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """After so many writes of the second frame."""
    write_to, left = outputs._write, [writes]

    def stopping(*arguments: Any) -> None:
        write_to(*arguments)
        left[0] -= 1
        if not left[0]:
            sys.exit(130)

    def interrupted() -> None:
        with open_outputs(tmp_path, ["coco"], ["a.jpg", "b.jpg"], CLASSES, OWN_IDS) as [output]:
            output.add(frame_of("a.jpg"), found_in(frame_of("a.jpg")))
            monkeypatch.setattr(outputs, "_write", stopping)
            output.add(frame_of("b.jpg"), found_in(frame_of("b.jpg")))

    with pytest.raises(SystemExit):
        interrupted()
    results = COCO(str(tmp_path / "images.json")).loadRes(str(tmp_path / "predictions.json"))
    assert len(results.anns) == 3 * writes


def test_names_never_collide() -> None:
    names = ["a.jpg", "b/a.png", "a.png", "a.bmp", "a.png.jpg", "c.v2.png", "c.v2"]
    new = output_names(names, ".jpg")
    assert len(set(new.values())) == len(names)
    assert new["b/a.png"] == "b/a.jpg"
    assert new["a.jpg"] == "a.jpg.jpg"
    assert new["a.png.jpg"] == "a.png.jpg"
    for some in itertools.permutations(names, 4):
        assert len(set(output_names(some, ".jpg").values())) == 4


def test_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("detkit.checkpoint.file.TIME_FORMAT", "now")
    assert [str(make_folder("")) for _ in range(3)] == [f"runs/predict/now{end}" for end in ("", "_2", "_3")]
    assert make_folder("x/y").is_dir() and make_folder("x/y") == Path("x/y")
    (tmp_path / "x" / "y" / "photo.jpg").touch()
    with pytest.raises(DataError, match=r"out=x/y: exists already; choose a new or an empty folder"):
        make_folder("x/y")
    with pytest.raises(StorageError, match=r"x/y/photo\.jpg/z: cannot be written: Not a directory"):
        make_folder("x/y/photo.jpg/z")


@pytest.mark.parametrize(
    ("save", "blocked"),
    [
        ("pictures", "pictures"),
        ("coco", "predictions.json"),
        ("coco", "images.json"),
        ("csv", "predictions.csv"),
        ("yolo", "labels"),
        ("yolo", "classes.txt"),
    ],
)
def test_what_cannot_be_written_is_told(tmp_path: Path, save: str, blocked: str) -> None:
    """A file stands where a folder has to be, or a folder where a file has to be."""
    block: Callable[[Path], Any] = Path.mkdir if "." in blocked else Path.touch
    block(tmp_path / blocked)
    with pytest.raises(StorageError, match=rf"{blocked}.*: cannot be written: "):
        write(tmp_path, save, (frame_of("a.jpg"), 1))
