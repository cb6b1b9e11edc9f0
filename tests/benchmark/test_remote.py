"""A worker that cannot go on says why, and leaves nothing behind."""

import os
import signal
from pathlib import Path

import pytest

from detkit.benchmark.remote import FailedError, Remote
from detkit.benchmark.worker import reason
from detkit.errors import CheckpointError

OPEN = {
    "runtime": "eager",
    "device": "cpu",
    "trusted": [],
    "image_hw": [64, 64],
    "files": [],
    "warmup": 1,
    "score_threshold": 0.25,
}


def test_an_error_is_the_reason(tmp_path: Path) -> None:
    """One line for the row, the traceback in the log."""
    expected = pytest.raises(FailedError, match=r"^/no/such\.safetensors: no such file")
    with Remote(1, tmp_path / "log.txt") as remote, expected:
        remote.ask("open", **OPEN, path="/no/such.safetensors")
    assert "Traceback" in (tmp_path / "log.txt").read_text()


def test_a_killed_process_is_the_reason(tmp_path: Path) -> None:
    remote = Remote(1, tmp_path / "log.txt")
    os.kill(remote.pid, signal.SIGKILL)
    with pytest.raises(FailedError, match="its process was killed, as happens when memory runs out"):
        remote.ask("open", **OPEN, path="a")
    remote.close()
    assert not (tmp_path / "log.txt").read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(remote.pid, 0)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CheckpointError("a.onnx: is damaged"), "a.onnx: is damaged"),
        (
            RuntimeError("backend='inductor' raised:\n\nNo C++ compiler found\nSet X"),
            "backend='inductor' raised: No C++ compiler found",
        ),
        (KeyError("boxes"), "KeyError: 'boxes'"),
        (NotImplementedError(), "NotImplementedError: "),
        (ValueError("x" * 1000), "x" * 300),
    ],
)
def test_a_reason_is_one_line(error: Exception, text: str) -> None:
    assert reason(error) == text
