"""Videos and cameras, frame by frame, and videos written; through cv2, which says little of what goes wrong."""

import contextlib
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

import cv2
import numpy as np

from detkit.errors import DataError, StorageError

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet; cv2 asks when it first opens a video
VIDEO_SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".mts"))
FPS = 25.0  # of a video or camera that does not say
LEAST_FPS = 0.01  # what is below cannot be written
_TRIMMED = frozenset((".mp4", ".m4v", ".mov"))  # may be played in part, by a list inside; the header counts all frames
_ESTIMATED = 0.02  # by so much a header may be wrong about the number of frames


class FewFramesError(DataError):
    """A video gives fewer frames than its header says, which is no fault if it was trimmed."""


class Frame(NamedTuple):
    """A picture to look at, and where it comes from."""

    image: np.ndarray  # (H, W, 3) uint8 RGB, upright
    name: str  # of its source
    number: int | None = None  # in a video, from 0; None for a picture
    time_s: float | None = None  # since the video began
    fps: float = FPS
    is_live: bool = False  # of a camera: frames come when they come, and time_s says when


class VideoFile(NamedTuple):
    """A video."""

    path: Path
    name: str  # unlike that of any other source; results lie under it

    @property
    def length(self) -> int | None:
        """Frames by its header, if that says so; it may be wrong by a few."""
        if not _is_utf8(self.path):
            return None
        with _captured(self.path) as capture:
            return _stated_length(capture)

    def frames(self) -> Iterator[Frame]:
        """All frames in their order; one is held at a time.

        Raises:
            DataError: if it cannot be opened, or, after those that can be read, if frames are missing at the end;
                FewFramesError where it may have been trimmed.
        """
        if not self.path.is_file():
            raise DataError(f"{self.path}: {'is no file' if self.path.exists() else 'there is no such file'}")
        if not _is_utf8(self.path):
            raise DataError(f"{self.path}: a video and its folders need names in UTF-8; rename what has another")
        with _captured(self.path) as capture:
            held, stated = 0, _stated_length(capture)
            for frame in _read(capture, self.name):
                held += 1
                yield frame
        if not held:
            raise DataError(f"{self.path}: is no video that can be read, or has no frames")
        if stated and held < stated * (1 - _ESTIMATED) - 1:
            said = f"{self.path}: {held} frames can be read, its header says {stated}: it is"
            if self.path.suffix.lower() in _TRIMMED:
                raise FewFramesError(f"{said} trimmed, cut or damaged")
            raise DataError(f"{said} cut or damaged")


class Camera(NamedTuple):
    """A camera, until it is unplugged or the program is stopped."""

    number: int

    @property
    def name(self) -> str:
        """Of its results."""
        return f"camera_{self.number}.mp4"

    @property
    def length(self) -> None:
        """Nobody knows."""

    def frames(self) -> Iterator[Frame]:
        """What it sees, with the time since the first frame.

        Raises:
            DataError: if there is no such camera.
        """
        with _captured(self.number) as capture:
            start_s = None
            for frame in _read(capture, self.name):
                now_s = time.perf_counter()
                start_s = now_s if start_s is None else start_s
                yield frame._replace(time_s=now_s - start_s, is_live=True)
        if start_s is None:
            raise DataError(f"source={self.number}: there is no such file or folder, and no camera of this number")


class VideoWriter:
    """An .mp4 of frames of one size; an odd last row or column is cut off, which MPEG-4 cannot hold.

    Args:
        path: of the file; its folder is there.
        fps: frames per second; above 65 to two digits, from 600 on to one.
        size_hw: of every frame.

    Raises:
        StorageError: if the file cannot be written.
    """

    def __init__(self, path: Path, fps: float, size_hw: tuple[int, int]) -> None:
        if not _is_utf8(path):
            raise StorageError(f"{path}: cannot be written: a video and its folders need names in UTF-8")
        self.path = path
        self.size_hw = size_hw
        self.written = 0
        self._last: np.ndarray | None = None  # as cv2 takes it
        height, width = size_hw
        if fps > 65:  # MPEG-4 counts time in at most 65535 parts of a second, cv2 in powers of ten of the rate
            fps = round(fps, 2 if fps < 600 else 1)
        self.fps = fps
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        with _quiet():
            self._writer = cv2.VideoWriter(os.path.abspath(path), cv2.CAP_FFMPEG, codec, fps, (width, height))  # noqa: PTH100
        if not self._writer.isOpened():
            raise StorageError(f"{path}: cannot be written: no video of {width} x {height} pixels can be begun there")

    def write(self, image: np.ndarray, time_s: float | None = None) -> None:
        """Append a frame.

        Args:
            image: (H, W, 3) uint8 RGB; one of another size, which cv2 would leave out, is resized.
            time_s: when it came, since the first: the one before is shown until then, and one that comes too early is
                left out; both by more than a frame. None: it is the next one.
        """
        due = self.written if time_s is None else time_s * self.fps
        while self._last is not None and self.written < due - 1:
            self._append(self._last)
        if self.written > due + 1:
            return
        height, width = self.size_hw
        if image.shape[:2] != self.size_hw:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        self._append(np.ascontiguousarray(image[..., ::-1]))

    def _append(self, image: np.ndarray) -> None:
        self._last = image
        with _quiet():
            self._writer.write(image)
        self.written += 1

    def close(self) -> None:
        """End the file.

        Raises:
            StorageError: if it does not hold all frames, as on a full disk, of which cv2 says nothing.
        """
        with _quiet():
            self._writer.release()
        with _captured(self.path) as capture:
            held = _stated_length(capture) or 0
        if held < self.written:  # one more, if the program was stopped while it was written
            raise StorageError(
                f"{self.path}: cannot be written: the file holds {held} of {self.written} frames; "
                "free space or choose another folder"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_utf8(path: Path) -> bool:
    """Of other names cv2 ends the program."""
    place = str(path.absolute())
    return place == place.encode(errors="ignore").decode()


@contextlib.contextmanager
def _captured(source: Path | int) -> Iterator[cv2.VideoCapture]:
    """Only by FFmpeg for files: other readers would take numbers in a name for a sequence of pictures."""
    with _quiet():
        if isinstance(source, int):
            capture = cv2.VideoCapture(source)
        else:
            capture = cv2.VideoCapture(os.path.abspath(source), cv2.CAP_FFMPEG)  # noqa: PTH100
    try:
        yield capture
    finally:
        capture.release()


def _read(capture: cv2.VideoCapture, name: str) -> Iterator[Frame]:
    fps = capture.get(cv2.CAP_PROP_FPS)
    fps = fps if LEAST_FPS <= fps <= 1000 else FPS
    number = 0
    while True:
        with _quiet():
            is_read, image = capture.read()
        if not is_read:
            return
        stated_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        time_s = stated_s if math.isfinite(stated_s) and stated_s >= 0 else number / fps
        yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), name, number, time_s, fps)
        number += 1


def _stated_length(capture: cv2.VideoCapture) -> int | None:
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if 0 < count < 1e9 else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on stderr from cv2: what is wrong is said by an error."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
