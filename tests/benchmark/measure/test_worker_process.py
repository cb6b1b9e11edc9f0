"""A worker process answers, or says why it cannot go on; it leaves nothing behind."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from detkit.benchmark.measure.worker import Worker
from detkit.benchmark.measure.worker_process import WorkerFailedError, WorkerProcess, one_line
from detkit.errors import CheckpointError


def facts(worker: Worker) -> dict[str, str]:
    """Called in the process."""
    import torch

    assert isinstance(worker, Worker)
    sys.stdout.write("printed by the process\n")
    own = {"threads": str(torch.get_num_threads()), "session": str(os.getsid(0)), "pid": str(os.getpid())}
    return {**own, "OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"]}


def start_child(_: Worker, pipe: Path) -> None:
    with pipe.open("wb") as file:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=file)


def end_by(_: Worker, number: int) -> None:
    os.kill(os.getpid(), number)


def leave(_: Worker) -> None:
    os._exit(3)


def open_detector(worker: Worker, path: Path) -> None:
    worker.open(
        runtime="eager",
        path=path,
        device="cpu",
        trusted=[],
        image_hw=(64, 64),
        batch_size=1,
        files=[],
        warmup=1,
        score_threshold=0.25,
    )


def test_threads_output_and_end_are_its_own(tmp_path: Path) -> None:
    """What it started ends with it: the pipe of its child is at its end when the child is."""
    os.mkfifo(tmp_path / "pipe")
    with WorkerProcess(1, tmp_path / "log.txt") as process:
        found = process.ask(facts)
        pid = str(process.pid)
        assert found == {"threads": "1", "OMP_NUM_THREADS": "1", "session": pid, "pid": pid}
        assert pid != str(os.getsid(0))  # Ctrl-C does not reach it
        reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        process.ask(start_child, tmp_path / "pipe")
        assert not select.select([reader], [], [], 0)[0]
    assert select.select([reader], [], [], 20)[0]
    assert os.read(reader, 1) == b""
    os.close(reader)
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    assert "printed by the process" in (tmp_path / "log.txt").read_text()


def test_an_error_is_the_reason(tmp_path: Path) -> None:
    """One line for the row, the traceback in the log."""
    expected = pytest.raises(WorkerFailedError, match=r"^/no/such\.safetensors: no such file")
    with WorkerProcess(1, tmp_path / "log.txt") as process, expected:
        process.ask(open_detector, Path("/no/such.safetensors"))
    assert (tmp_path / "log.txt").read_text().count("Traceback") >= 1
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_a_killed_process_is_the_reason(tmp_path: Path) -> None:
    """Before its first answer, too."""
    process = WorkerProcess(1, tmp_path / "log.txt")
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(WorkerFailedError, match="its process was killed, as happens when memory runs out"):
        process.ask(facts)
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


@pytest.mark.parametrize(("number", "said"), [(None, "ended with code 3"), (signal.SIGTERM, "ended by SIGTERM")])
def test_a_process_that_ends_is_the_reason(tmp_path: Path, number: int | None, said: str) -> None:
    with (
        WorkerProcess(1, tmp_path / "log.txt") as process,
        pytest.raises(WorkerFailedError, match=f"^its process {said}$"),
    ):
        process.ask(leave) if number is None else process.ask(end_by, number)


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
    assert one_line(error) == text
