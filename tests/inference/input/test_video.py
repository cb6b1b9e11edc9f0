"""Videos that are written: every frame of every rate, also when somebody stops the program."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detkit import errors
from detkit.errors import DataError, StorageError
from detkit.inference.input.video import FPS, Camera, FewFramesError, VideoFile, VideoWriter
from tests.helpers.videos import SIZE_HW, Capture, number_in, numbered, write_trimmed, write_video


@pytest.fixture
def ends_at_ctrl_c() -> Iterator[None]:
    """As in a script."""
    before = signal.signal(signal.SIGINT, errors._exit)
    yield
    signal.signal(signal.SIGINT, before)


class PressedWhileWriting:
    """cv2's writer, and a Ctrl-C that comes while it works: it is heard when it is done."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def write(self, image: np.ndarray) -> None:
        self.writer.write(image)
        signal.raise_signal(signal.SIGINT)

    def release(self) -> None:
        self.writer.release()


@pytest.mark.usefixtures("ends_at_ctrl_c")
def test_ctrl_c_while_a_frame_is_written_ends_the_program_and_not_the_video(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", 25, SIZE_HW)
    writer.write(numbered(0))
    writer._writer = PressedWhileWriting(writer._writer)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(SystemExit) as end, writer:
        writer.write(numbered(1))
    assert end.value.code == 130
    assert len(list(VideoFile(tmp_path / "a.mp4", "a.mp4").frames())) == 2


@pytest.mark.parametrize("fps", [0.01, 23.976, 59.94006, 65.5, 66.6667, 119.88, 239.847, 599.996, 655.37, 999.94, 1000])
def test_every_rate_is_written(tmp_path: Path, fps: float) -> None:
    with VideoWriter(tmp_path / "a.mp4", fps, SIZE_HW) as writer:
        for number in range(3):
            writer.write(numbered(number))
    frames = list(VideoFile(tmp_path / "a.mp4", "a.mp4").frames())
    assert [number_in(frame.image) for frame in frames] == [0, 1, 2]
    assert frames[0].fps == pytest.approx(fps, rel=1e-4)


@pytest.mark.parametrize("stated", [0.0, -1.0, 0.0004, 90_000.0, float("nan")])
def test_a_video_without_a_usable_rate_has_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stated: float
) -> None:
    """And times by it, where it says none either."""
    (tmp_path / "a.avi").touch()
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    monkeypatch.setattr(Capture, "stated", {cv2.CAP_PROP_FPS: stated, cv2.CAP_PROP_POS_MSEC: float("nan")})
    frames = list(VideoFile(tmp_path / "a.avi", "a.avi").frames())
    assert [(frame.fps, frame.time_s) for frame in frames] == [(FPS, 0), (FPS, 1 / FPS), (FPS, 2 / FPS)]


def test_a_camera_gives_frames_and_the_time_since_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not since it was opened: it may take seconds to wake up."""
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    monkeypatch.setattr(Capture, "stated", {cv2.CAP_PROP_FPS: 30.0})
    monkeypatch.setattr(Capture, "wait_s", 0.1)
    start_s = time.perf_counter()
    frames = list(Camera(0).frames())
    took_s = time.perf_counter() - start_s
    assert [number_in(frame.image) for frame in frames] == [0, 1, 2]
    assert {(frame.fps, frame.name) for frame in frames} == {(30.0, "camera_0.mp4")}
    times = [frame.time_s or 0.0 for frame in frames]
    assert times[0] == 0 and times[1] >= 0.1 and times[1] + 0.1 <= times[2] <= took_s - 0.1


def test_a_camera_video_is_as_long_as_what_it_saw(tmp_path: Path) -> None:
    """At 5 images a second, then a pause, then more than its rate; each is shown until the next one came."""
    came_s = [0.0, 0.2, 0.4, 2.0, *(2.0 + number / 60 for number in range(1, 61))]
    with VideoWriter(tmp_path / "a.mp4", 30.0, SIZE_HW) as writer:
        for number, time_s in enumerate(came_s):
            writer.write(numbered(number), time_s)
    shown = [number_in(frame.image) for frame in VideoFile(tmp_path / "a.mp4", "a.mp4").frames()]
    assert len(shown) == pytest.approx(3.0 * 30, abs=2)
    assert shown == sorted(shown)
    for second, number in ((0.1, 0), (0.3, 1), (0.5, 2), (1.9, 2)):
        assert shown[round(second * 30)] == number
    assert shown[75] == pytest.approx(3 + 30, abs=3)


def test_a_camera_that_keeps_its_rate_roughly_loses_and_repeats_nothing(tmp_path: Path) -> None:
    came_s = [0.0, *((number + (-1) ** number * 0.45) / 30 for number in range(1, 40))]
    with VideoWriter(tmp_path / "a.mp4", 30.0, SIZE_HW) as writer:
        for number, time_s in enumerate(came_s):
            writer.write(numbered(number), time_s)
    shown = [number_in(frame.image) for frame in VideoFile(tmp_path / "a.mp4", "a.mp4").frames()]
    assert shown == list(range(40))


def test_a_trimmed_video_gives_what_is_shown(tmp_path: Path) -> None:
    frames = VideoFile(write_trimmed(tmp_path / "a.mp4", 50), "a.mp4").frames()
    assert [number_in(next(frames).image) for _ in range(25)] == list(range(25))
    message = r"a\.mp4: 25 frames can be read, its header says 50: it is trimmed, cut or damaged"
    with pytest.raises(FewFramesError, match=message):
        next(frames)


def test_a_video_of_a_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    """cv2 would end the program."""
    path = write_video(tmp_path / "a.mp4", 3).rename(tmp_path / os.fsdecode(b"caf\xe9.mp4"))
    assert VideoFile(path, "a").length is None
    with pytest.raises(DataError, match=r"caf\udce9\.mp4: a video and its folders need names in UTF-8; rename"):
        next(VideoFile(path, "a").frames())
    with pytest.raises(StorageError, match=r"caf\udce9\.mp4: cannot be written: a video .* names in UTF-8"):
        VideoWriter(path, 25, SIZE_HW)
