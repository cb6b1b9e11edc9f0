"""Videos whose frames show their number, and a camera."""

import struct
import time
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

SIZE_HW = (96, 128)


def numbered(number: int) -> np.ndarray:
    """A frame that shows its number in the grey of its halves, in steps that no codec blurs."""
    image = np.zeros((*SIZE_HW, 3), np.uint8)
    image[:, :64], image[:, 64:] = number // 20 * 12, number % 20 * 12
    return image


def number_in(image: np.ndarray) -> int:
    left, right = (round(half.mean() / 12) for half in (image[:, :60], image[:, 68:]))
    return left * 20 + right


def write_video(path: Path, length: int, fps: float = 30.0, codec: str = "mp4v") -> Path:
    """By cv2 alone."""
    fourcc = cv2.VideoWriter.fourcc(*codec)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, fourcc, fps, SIZE_HW[::-1])
    for number in range(length):
        writer.write(numbered(number))
    writer.release()
    return path


def write_trimmed(path: Path, length: int) -> Path:
    """An .mp4 that is played to its half, as telephones leave it: all frames are inside."""
    content = bytearray(write_video(path, length).read_bytes())
    place = content.index(b"elst") + 12  # after version, flags and the number of entries: how long the first is shown
    shown = struct.unpack_from(">I", content, place)[0]
    struct.pack_into(">I", content, place, shown // 2)
    path.write_bytes(content)
    return path


class Capture:
    """In place of cv2's: a camera or a video of three frames."""

    stated: ClassVar[dict[int, float]] = {}  # what it says of itself
    wait_s = 0.0  # before each frame

    def __init__(self, *_: object) -> None:
        self.number = 0

    def get(self, what: int) -> float:
        return self.stated.get(what, 0.0)

    def read(self) -> tuple[bool, np.ndarray | None]:
        time.sleep(self.wait_s)
        self.number += 1
        return (True, numbered(self.number - 1)) if self.number <= 3 else (False, None)

    def release(self) -> None:
        """Nothing is held."""
