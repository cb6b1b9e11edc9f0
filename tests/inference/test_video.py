"""Videos that are written: every frame of every rate, also when somebody stops the program."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detkit import errors
from detkit.inference.video import VideoFile, VideoWriter
from tests.inference.test_sources import SIZE_HW, numbered


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
