"""scripts/predict.py on videos, cameras and files that are not as they should be, and its bar."""

import csv
import io
import json
import os
import pty
import sys
import threading
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

import detkit
from detkit.commands.predict import main
from detkit.inference.input.video import Camera
from detkit.inference.output.coco_ids import ids_of_detector
from detkit.inference.predict.options import PredictOptions
from detkit.inference.predict.run import PredictRun
from tests.helpers.predict_command import LOW, rows_of, words
from tests.helpers.tiny_detectors import write_untrained
from tests.helpers.videos import SIZE_HW, Capture, number_in, write_trimmed, write_video
from tests.helpers.warm_scripts import run_script


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained(tmp_path_factory.mktemp("run"))


def test_video_of_300_frames(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All frames, in their order, at the same rate, and never many of them at once."""
    video, out = write_video(tmp_path / "clip.avi", 300, 30.0, "MJPG"), tmp_path / "out"
    tracemalloc.start()
    main(words(checkpoint, video, out, "score_threshold=0.9", "save=pictures,coco")[1:])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    annotated = cv2.VideoCapture(str(out / "pictures" / "clip.mp4"))
    frames = [annotated.read()[1] for _ in range(300)]
    assert [number_in(frame) for frame in frames] == list(range(300))
    assert not annotated.read()[0]
    assert annotated.get(cv2.CAP_PROP_FPS) == 30.0
    images = json.loads((out / "images.json").read_text())["images"]
    assert [image["frame"] for image in images] == list(range(300))
    assert peak < 100 * np.prod((*SIZE_HW, 3))
    assert ["all", "0", "300"] in [line.split() for line in capsys.readouterr().out.splitlines()]


class Stopped(Capture):
    """A camera at which somebody presses Ctrl-C, after three frames."""

    def read(self) -> tuple[bool, np.ndarray | None]:
        if self.number == 3:
            sys.exit(130)
        return super().read()


def test_what_a_camera_saw_until_ctrl_c_is_kept_and_told(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with batches of eight: no frame waits for others to come."""
    files = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda what, *api: Stopped() if what == 0 else files(what, *api))
    predictor, console = detkit.load(checkpoint), Console(file=io.StringIO(), width=100)
    options = PredictOptions("", "0", save=("pictures", "coco"), batch_size=8)
    ids = ids_of_detector(predictor.class_names, predictor.category_ids)
    with pytest.raises(SystemExit):
        PredictRun(options, [Camera(0)], predictor, ids, tmp_path).run(console)
    assert cv2.VideoCapture(str(tmp_path / "pictures" / "camera_0.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) >= 2
    assert len(json.loads((tmp_path / "images.json").read_text())["images"]) == 3
    assert f"results: {tmp_path}/pictures" in console.file.getvalue()  # type: ignore[attr-defined]


def test_what_was_read_before_an_error_is_kept(checkpoint: Path, tmp_path: Path) -> None:
    """Though it does not fill a batch."""
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8))
    (tmp_path / "b.jpg").write_text("hello world")
    (tmp_path / "list.txt").write_text("a.png\nb.jpg\na.png\n")
    more = [LOW, "save=csv", "unreadable=stop", "batch_size=8"]
    done = run_script(words(checkpoint, tmp_path / "list.txt", tmp_path / "out", *more))
    assert done.returncode == 65
    assert done.stderr.startswith(f"error: {tmp_path}/b.jpg: not an image: it begins with b'hello wo'")
    found = detkit.load(checkpoint).predict(tmp_path / "a.png", score_threshold=0.01)
    rows = [(row["file"], row["name"]) for row in rows_of(tmp_path / "out" / "predictions.csv")]
    assert rows == [("a.png", name) for name in found.names] != []
    assert ["all", f"{len(found)}", "1"] in [line.split() for line in done.stdout.splitlines()]


def test_names_of_files_need_not_be_text(checkpoint: Path, tmp_path: Path) -> None:
    """In Latin-1, as from an old disk: a picture, one that cannot be read, and a video, which needs another name."""
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    picture, text, video = (os.fsdecode(b"caf\xe9" + suffix) for suffix in (b".png", b".jpg", b".mp4"))
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8))
    (tmp_path / "a.png").rename(folder / picture)
    (folder / text).write_text("hello world")
    write_video(tmp_path / "a.mp4", 3).rename(folder / video)
    done = run_script(words(checkpoint, folder, out, LOW, "save=pictures,coco,csv,yolo"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "caf\\udce9.jpg: not an image" in done.stdout
    assert "caf\\udce9.mp4: a video and its folders need names in UTF-8" in done.stdout
    found = detkit.load(checkpoint).predict(folder / picture, score_threshold=0.01)
    [image] = json.loads((out / "images.json").read_text())["images"]
    assert image["file_name"] == picture
    raw = (out / "predictions.csv").read_text(encoding="utf-8", errors="surrogateescape")
    assert [row["file"] for row in csv.DictReader(io.StringIO(raw))] == [picture] * len(found) != []
    for file in ("pictures/*.jpg", "labels/*.txt"):
        [written] = out.glob(file)
        assert written.name.startswith(picture)
    done = run_script(words(checkpoint, folder, tmp_path / "other", "unreadable=stop"))
    assert done.returncode == 65
    assert "Traceback" not in done.stderr


def test_a_trimmed_video_is_no_error(checkpoint: Path, tmp_path: Path) -> None:
    """A notice, and what comes after it is looked at."""
    (tmp_path / "v").mkdir()
    write_trimmed(tmp_path / "v" / "a.mp4", 20)
    write_trimmed(tmp_path / "v" / "b.mp4", 50)
    done = run_script(words(checkpoint, tmp_path / "v", tmp_path / "out", "save=csv", "unreadable=stop"))
    assert (done.returncode, done.stderr) == (0, "")
    assert ["all", "0", "35"] in [line.split() for line in done.stdout.splitlines()]
    assert "perhaps incomplete: videos with fewer frames than their header says: 2\n" in done.stdout
    assert "b.mp4: 25 frames can be read, its header says 50: it is trimmed, cut or damaged\n" in done.stdout
    assert "not read" not in done.stdout


@pytest.mark.parametrize(("video", "expected"), [(b"a.avi", "14/14"), (b"caf\xe9.avi", "3/?")])
def test_a_bar_shows_how_far_it_is(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    video: bytes,
    expected: str,
) -> None:
    """On a terminal: frames and files of how many, if the files say so."""
    folder = tmp_path / "v"
    folder.mkdir()
    write_video(tmp_path / "a.avi", 12, codec="MJPG").rename(folder / os.fsdecode(video))
    (folder / "b.jpg").write_text("hello world")
    cv2.imwrite(str(folder / "c[red].png"), np.zeros((30, 40, 3), np.uint8))
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        while not (shown and shown[-1].endswith(b"\x04")):
            shown.append(os.read(ours, 1000))

    reader = threading.Thread(target=read)
    reader.start()
    with open(theirs, "w", encoding="utf-8", closefd=False) as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        try:
            main(words(checkpoint, folder, tmp_path / "out", "save=csv", "batch_size=5")[1:])
        finally:
            os.write(theirs, b"\x04")
            reader.join()
    for end in (ours, theirs):
        os.close(end)
    said = b"".join(shown).decode()
    assert expected in said
    assert "c[red].png" in said
    assert "b.jpg: not an image" in capsys.readouterr().out
