"""Reads videos and cameras frame by frame, and writes videos, with cv2, which reports few errors itself."""

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

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # no messages; cv2 reads it when it first opens a video
VIDEO_SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".mts"))
FPS = 25.0  # for a video or camera without this value
LEAST_FPS = 0.01  # lower rates cannot be written
_TRIMMED = frozenset((".mp4", ".m4v", ".mov"))  # may have an edit list, whose frames are fewer than the header says
_ESTIMATED = 0.02  # tolerated relative error of the number of frames in a header


class FewFramesError(DataError):
    """A video has fewer frames than its header says, which is correct if it was trimmed."""


class Frame(NamedTuple):
    """An image with its source and time."""

    image: np.ndarray  # (H, W, 3) uint8 RGB, upright
    name: str  # of its source
    number: int | None = None  # in a video, from 0; None for a picture
    time_s: float | None = None  # since the video began
    fps: float = FPS
    is_live: bool = False  # of a camera, whose frames come at irregular times


class VideoFile(NamedTuple):
    """A video."""

    path: Path
    name: str  # unique among the sources; the results have this name

    @property
    def length(self) -> int | None:
        """The number of frames by the header, which may be wrong by a few; None if the header has none."""
        if not _is_utf8(self.path):
            return None
        with _captured(self.path) as capture:
            return _stated_length(capture)

    def frames(self) -> Iterator[Frame]:
        """All frames in their order; one is in memory at a time.

        Raises:
            DataError: if it cannot be opened, or, after the last readable frame, if frames are missing at the end;
                FewFramesError if it may have been trimmed.
        """
        if not self.path.is_file():
            raise DataError(f"{self.path}: {'is no file' if self.path.exists() else 'there is no such file'}")
        if not _is_utf8(self.path):
            raise DataError(f"{self.path}: a video and its folders need names in UTF-8; rename them")
        with _captured(self.path) as capture:
            read, stated = 0, _stated_length(capture)
            for frame in _read(capture, self.name):
                read += 1
                yield frame
        if not read:
            raise DataError(f"{self.path}: is no video that can be read, or has no frames")
        if stated and read < stated * (1 - _ESTIMATED) - 1:
            fault = f"{self.path}: {read} frames can be read, its header says {stated}: it is"
            if self.path.suffix.lower() in _TRIMMED:
                raise FewFramesError(f"{fault} trimmed, cut or damaged")
            raise DataError(f"{fault} cut or damaged")


class Camera(NamedTuple):
    """A camera, until it is unplugged or the program is stopped."""

    number: int

    @property
    def name(self) -> str:
        """The name of its results."""
        return f"camera_{self.number}.mp4"

    @property
    def length(self) -> None:
        """Always None, because the end is unknown."""

    def frames(self) -> Iterator[Frame]:
        """The frames, with the time since the first frame.

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
    """An .mp4 with frames of one size. An odd last row or column is cut off, because MPEG-4 needs even sides.

    Args:
        path: of the file, in an existing folder.
        fps: frames per second; rounded to two digits above 65, and to one from 600 on.
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
        self._last: np.ndarray | None = None  # BGR
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
            image: (H, W, 3) uint8 RGB; resized if it has another size, because cv2 would drop it.
            time_s: seconds since the first frame. If it is late by more than a frame, the frame before is repeated; if
                it is early by more than a frame, it is dropped. None: the frame follows directly.
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
        """Complete the file.

        Raises:
            StorageError: if frames are missing in it, e.g. on a full disk, which cv2 does not report.
        """
        with _quiet():
            self._writer.release()
        with _captured(self.path) as capture:
            read = _stated_length(capture) or 0
        if read < self.written:  # one more if the program was stopped during a write
            raise StorageError(
                f"{self.path}: cannot be written: the file has {read} of {self.written} frames; "
                "free space or choose another folder"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_utf8(path: Path) -> bool:
    """Whether the path is valid UTF-8; cv2 aborts the process for other paths."""
    place = str(path.absolute())
    return place == place.encode(errors="ignore").decode()


@contextlib.contextmanager
def _captured(source: Path | int) -> Iterator[cv2.VideoCapture]:
    """An open capture. Files use FFmpeg only, because other backends read names with numbers as image sequences."""
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
    """Suppress messages of cv2 on stderr; failures are raised as errors."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
