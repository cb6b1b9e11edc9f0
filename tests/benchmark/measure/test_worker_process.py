"""A worker that cannot go on says why, and leaves nothing behind."""

import os
import select
import signal
import sys
from pathlib import Path

import pytest

from detkit.benchmark.measure import worker_process as remote_module
from detkit.benchmark.measure.worker import reason
from detkit.benchmark.measure.worker_process import FailedError, Remote
from detkit.errors import CheckpointError

OPEN = {
    "runtime": "eager",
    "device": "cpu",
    "trusted": [],
    "image_hw": [64, 64],
    "batch_size": 1,
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


def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> Remote:
    """Another program in the place of the worker."""
    (tmp_path / "program.sh").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "program.sh").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "program.sh"))
    return Remote(1, tmp_path / "log.txt")


def test_a_process_that_is_slow_to_die_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that writes its memory down."""
    monkeypatch.setattr(remote_module, "LAST_S", 0.1)
    remote = fake(tmp_path, monkeypatch, "exec >&- sleep 600")
    with pytest.raises(FailedError, match=r"its process closed its answers and had not ended 0\.1 s later"):
        remote.ask("open")
    with pytest.raises(ProcessLookupError):
        os.kill(remote.pid, 0)


def test_what_a_worker_started_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipe of its child is at its end when the child is."""
    os.mkfifo(tmp_path / "pipe")
    remote = fake(tmp_path, monkeypatch, f"sleep 600 >{tmp_path}/pipe & echo '{{}}'; wait")
    with (tmp_path / "pipe").open("rb") as pipe:
        assert remote.ask("open") == {}
        remote.close()
        assert select.select([pipe], [], [], 20)[0]
        assert pipe.read() == b""


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
