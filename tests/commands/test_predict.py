"""scripts/predict.py: what it writes is what the detector finds, frame by frame, and what goes wrong is one line."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import detkit
from detkit.commands.predict import main
from detkit.errors import RecipeError
from detkit.inference.predict.options import PredictOptions
from detkit.recipe.options import read_options
from tests.helpers.predict_command import LOW, rows_of, words
from tests.helpers.tiny_detectors import write_untrained
from tests.helpers.warm_scripts import ROOT, run_script


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained(tmp_path_factory.mktemp("run"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five pictures in two folders, two of one name, and a text that is called a picture."""
    rng = np.random.default_rng(0)
    for name in ("2.jpg", "10.png", "10.jpg", "b/2.jpg", "b/3.bmp"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 255, [*rng.integers(40, 90, 2).tolist(), 3], dtype=np.uint8))
    (tmp_path / "photos" / "b" / "text.jpg").write_text("hello world")
    return tmp_path / "photos"


def test_all_results_are_those_of_predict(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in photos.rglob("*.*")}
    out = tmp_path / "out"
    done = run_script(words(checkpoint, photos, out, LOW, "save=pictures,coco,csv,yolo", "batch_size=2"))
    assert (done.returncode, done.stderr) == (0, "")
    assert {path: path.read_bytes() for path in photos.rglob("*.*")} == before
    names = ["2.jpg", "10.jpg", "10.png", "b/2.jpg", "b/3.bmp"]
    expected = {name: detkit.load(checkpoint).predict(photos / name, score_threshold=0.01) for name in names}
    assert min(map(len, expected.values())) > 0

    rows = rows_of(out / "predictions.csv")
    images = json.loads((out / "images.json").read_text())["images"]
    results = json.loads((out / "predictions.json").read_text())
    assert [image["file_name"] for image in images] == names
    categories = json.loads((out / "images.json").read_text())["categories"]
    assert categories == [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}]
    for image in images:
        found = expected[image["file_name"]]
        mine = [row for row in rows if row["file"] == image["file_name"]]
        assert [row["name"] for row in mine] == found.names
        assert [float(row["score"]) for row in mine] == pytest.approx(found.scores.tolist(), abs=1e-5)
        boxes = [[float(row[side]) for side in ("x1", "y1", "x2", "y2")] for row in mine]
        assert np.allclose(boxes, found.boxes, atol=1e-3)
        assert (image["height"], image["width"]) == found.image_hw
        of_image = [row for row in results if row["image_id"] == image["id"]]
        assert [row["category_id"] for row in of_image] == [[18, 17][label] for label in found.labels.tolist()]
    pictures = {path.relative_to(out / "pictures").as_posix() for path in (out / "pictures").rglob("*.jpg")}
    assert pictures == {"2.jpg", "10.jpg.jpg", "10.png.jpg", "b/2.jpg", "b/3.jpg"}
    labels = {path.relative_to(out / "labels").as_posix() for path in (out / "labels").rglob("*.txt")}
    assert labels == {"2.txt", "10.jpg.txt", "10.png.txt", "b/2.txt", "b/3.txt"}

    shown = [line.split() for line in done.stdout.splitlines()]
    total = sum(map(len, expected.values()))
    assert ["all", f"{total:,}", "5"] in shown
    for name in ("dog", "cat"):
        counts = [found.names.count(name) for found in expected.values()]
        assert not sum(counts) or [name, f"{sum(counts):,}", str(sum(map(bool, counts)))] in shown
    assert "images/s; milliseconds of each: read " in done.stdout
    assert f"not read: {photos}/b/text.jpg: not an image: it begins with b'hello wo'" in done.stdout
    assert f"results: {out}/predictions.json with images.json" in done.stdout


def test_annotations_give_the_ids(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    """A class that the annotation file does not have is left out, and named."""
    (photos / "b" / "text.jpg").unlink()
    names = ["b/3.bmp", "b/2.jpg"]
    images = [{"id": 40 + n, "file_name": name, "height": 9, "width": 9} for n, name in enumerate(names)]
    document = {"images": images, "annotations": [], "categories": [{"id": 17, "name": "cat"}]}
    (tmp_path / "a.json").write_text(json.dumps(document))
    done = run_script(words(checkpoint, photos / "b", tmp_path / "o", LOW, f"annotations={tmp_path}/a.json"))
    assert done.returncode == 0, done.stderr
    assert f"not in predictions.json, because {tmp_path}/a.json has no such category: dog" in done.stdout
    results = json.loads((tmp_path / "o" / "predictions.json").read_text())
    expected = {
        40 + n: detkit.load(checkpoint).predict(photos / name, score_threshold=0.01).names.count("cat")
        for n, name in enumerate(names)
    }
    assert sum(expected.values()) > 0
    assert {n: [row["image_id"] for row in results].count(n) for n in expected} == expected
    assert {row["category_id"] for row in results} == {17}


def test_a_new_folder_where_none_is_named(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    arguments = [str(ROOT / "scripts/predict.py"), f"checkpoint={checkpoint}", f"source={photos}/2.jpg", "device=cpu"]
    done = run_script([*arguments, "save=csv"], cwd=tmp_path)
    [folder] = (tmp_path / "runs" / "predict").iterdir()
    assert f"results: runs/predict/{folder.name}/predictions.csv" in done.stdout
    assert run_script([*arguments, "save="], cwd=tmp_path).returncode == 0
    assert [*(tmp_path / "runs" / "predict").iterdir()] == [folder]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["source=gone.jpg"], 65, "error: source=gone.jpg: there is no such file or folder\n"),
        (["source=empty"], 65, "error: empty: no file in it or its subfolders ends with one of .avi, .bmp,"),
        (["source=text.jpg"], 65, "error: text.jpg: not an image: it begins with b'hello wo'; detkit reads JPEG,"),
        (["source=text.mp4"], 65, "error: text.mp4: is no video that can be read, or has no frames\n"),
        (["source=list.txt", "unreadable=stop"], 65, "error: text.jpg: not an image: it begins with b'hello wo'"),
        (["checkpoint=gone"], 66, "error: checkpoint=gone: there is no such file or folder\n"),
        (["out=text.jpg/x"], 74, "error: text.jpg/x: cannot be written: Not a directory"),
        (["out=full"], 65, "error: out=full: exists already; choose a new or an empty folder\n"),
        (["annotations=gone.json"], 65, "error: annotations=gone.json: there is no such file or folder\n"),
        (["device=cuda:99"], 78, "error: device=cuda:99: cannot be used: "),
        (["device=gpu"], 78, "error: device=gpu: cannot be used: "),
        (
            ["score_threshold=0.0001"],
            78,
            "error: score_threshold must lie in [0.001, 1]; got 0.0001\n",
        ),
        (["sorce=a"], 78, "error: sorce: no such key; did you mean 'source'?\n"),
    ],
)
def test_what_is_wrong_is_told_without_a_traceback(
    checkpoint: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    for folder in ("empty", "full/x"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("text.jpg", "text.mp4"):
        (tmp_path / name).write_text("hello world")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((30, 30, 3), np.uint8))
    (tmp_path / "list.txt").write_text("a.png\ntext.jpg\n")
    given = {"checkpoint": str(checkpoint), "source": "a.png", "out": "out"}
    given |= dict(argument.split("=", 1) for argument in arguments)
    done = run_script([str(ROOT / "scripts/predict.py"), *(f"{key}={text}" for key, text in given.items())], tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_options_are_checked_together() -> None:
    wrong = ["chekpoint=a", "source=", "save=csv,pdf", "score_threshold=nan", "batch_size=0", "unreadable=maybe", "x"]
    with pytest.raises(RecipeError) as caught:
        read_options(PredictOptions, [*wrong, "max_detections=1.5"])
    assert str(caught.value).splitlines() == [
        "9 faults in the arguments:",
        "  chekpoint: no such key; did you mean 'checkpoint'?",
        "  x: must have the form key=value, e.g. source=photos",
        "  checkpoint: is missing, e.g. checkpoint=runs/NAME/TIME",
        "  source: is missing, e.g. source=photos",
        "  save: must be some of pictures,coco,csv,yolo; got 'pdf'",
        "  score_threshold: must be a number from 0 to 1; got 'nan'",
        "  batch_size: must be a whole number from 1 on; got '0'",
        "  unreadable: must be skip or stop; got 'maybe'",
        "  max_detections: must be a whole number from 1 on; got '1.5'",
    ]


def test_options_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a=b.ckpt", "a", "b"):
        (tmp_path / name).touch()
    typed = ["checkpoint=a=b.ckpt", "source=007", "save=[csv, yolo,csv]", "score_threshold=1e-2"]
    options, _ = read_options(PredictOptions, typed)
    assert options == PredictOptions("a=b.ckpt", "007", save=("csv", "yolo"), score_threshold=0.01)
    assert read_options(PredictOptions, ["checkpoint=a", "source=b", "save="])[0].save == ()


def test_slices_and_flip_are_those_of_predict(checkpoint: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (90, 150, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    more = [LOW, "save=csv", "slices=48", "overlap=0.3", "flip=true", "batch_size=5"]
    main(words(checkpoint, tmp_path / "a.png", tmp_path / "out", *more)[1:])
    options: dict[str, Any] = {"slices": 48, "overlap": 0.3, "flip": True}
    expected = detkit.load(checkpoint).predict(tmp_path / "a.png", score_threshold=0.01, **options)
    rows = rows_of(tmp_path / "out" / "predictions.csv")
    assert [float(row["score"]) for row in rows] == pytest.approx(expected.scores.tolist(), abs=1e-5)
    plain = detkit.load(checkpoint).predict(tmp_path / "a.png", score_threshold=0.01)
    assert len(expected) > 0 and plain.boxes.tolist() != expected.boxes.tolist()


def test_wrong_slices_are_told_before_torch_is_imported() -> None:
    with pytest.raises(RecipeError) as caught:
        read_options(PredictOptions, ["checkpoint=a", "source=b", "slices=20", "overlap=0.95", "flip=1"])
    assert str(caught.value).splitlines()[1:] == [
        "  slices: must be a whole number from 32 on; got '20'",
        "  overlap: must be a number from 0 to 0.9; got '0.95'",
        "  flip: must be true or false; got '1'",
    ]
