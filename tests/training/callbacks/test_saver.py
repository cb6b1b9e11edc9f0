"""When a checkpoint is saved, what a failed write does to a run, and how a signal ends it."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import pytest
from typing_extensions import override

from detkit.checkpoint import latest_checkpoint, manifests_in, read_detector
from detkit.errors import StorageError
from detkit.training import CheckpointSettings, train
from detkit.training.callbacks.saver import CheckpointSaver
from detkit.training.run.failed_writes import FailedWrites
from detkit.training.run.folder import RunFolder
from detkit.training.run.interrupt import Interrupt, TrainingStopped
from tests.helpers import ROOT
from tests.helpers.slow_disk import FullDisk
from tests.helpers.toy import toy_parts
from tests.reliability.disk import watched


def only_run(runs: Path) -> RunFolder:
    (path,) = (runs / "toy").iterdir()
    return RunFolder(path)


def steps_in(runs: Path) -> list[int]:
    return [manifest.step for manifest in manifests_in(only_run(runs).checkpoints)]


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({"every_minutes": 1e-9}, list(range(1, 13))), ({"every_minutes": 60.0}, [6, 12]), ({}, [6, 12])],
)
def test_saves_by_the_clock(tmp_path: Path, settings: dict[str, Any], steps: list[int]) -> None:
    train(toy_parts(tmp_path, epochs=2, checkpoint={"keep": 100, **settings}))
    assert steps_in(tmp_path) == steps


def test_a_save_is_due_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt, failures = Interrupt(), FailedWrites()
    saver: Any = CheckpointSaver(CheckpointSettings(every_minutes=2), *[None] * 2, interrupt, failures)  # type: ignore[arg-type]
    saver._saved_at = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: 219.9)
    assert saver.requests.own() == [0, 0, 0]
    monkeypatch.setattr(time, "monotonic", lambda: 220.0)
    assert saver.requests.own() == [0, 0, 1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"every_minutes": 0.0}, "every_minutes must be above 0, or null; got 0.0"),
        ({"every_minutes": float("nan")}, "every_minutes must be above 0, or null; got nan"),
        ({"on_failure": "go on"}, "on_failure must be one of stop, continue; got go on"),
    ],
)
def test_settings_that_say_nothing(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CheckpointSettings(**wrong)


def test_a_failed_save_stops_the_run(tmp_path: Path) -> None:
    said = (
        r"step-00000012.ckpt: cannot be written: No space left on device; about .* kB needed, .* free; free some space "
        r"there; the last good checkpoint is .*/step-00000006.ckpt"
    )
    with pytest.raises(StorageError, match=said), watched(FullDisk("step-00000012.ckpt")):
        train(toy_parts(tmp_path))
    assert steps_in(tmp_path) == [6]


def test_nothing_saved_yet_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"step-00000006.ckpt: .*; there is no checkpoint yet"),
        watched(FullDisk(".ckpt")),
    ):
        train(toy_parts(tmp_path))


def test_a_run_goes_on_without_a_save(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The one before stays beyond the number to keep, and the next save is tried."""
    with watched(FullDisk(".ckpt", first=2, times=3)):
        train(toy_parts(tmp_path, checkpoint={"on_failure": "continue", "every_n_steps": 2, "keep": 2}))
    failed = [record.getMessage() for record in caplog.records if "cannot be written" in record.getMessage()]
    assert len(failed) == 3 and "failure 3" in failed[2] and "last good checkpoint is" in failed[2]
    assert steps_in(tmp_path)[-2:] == [16, 18]


def test_a_run_that_goes_on_does_not_end_well_without_its_last_save(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"step-00000018.ckpt: cannot be written: No space"),
        watched(FullDisk("step-00000018.ckpt")),
    ):
        train(toy_parts(tmp_path, checkpoint={"on_failure": "continue"}))
    assert steps_in(tmp_path) == [6, 12]


@pytest.mark.parametrize("on_failure", ["stop", "continue"])
def test_a_stop_that_cannot_be_saved_says_so(tmp_path: Path, on_failure: str) -> None:
    """It must not end as if it were saved."""
    parts = toy_parts(tmp_path, checkpoint={"on_failure": on_failure})
    parts.trainer.keywords["callbacks"].append(SignalAt(signal.SIGTERM, 9))
    with pytest.raises(StorageError, match=r"step-00000009.ckpt: cannot be written"), watched(FullDisk("-00000009")):
        train(parts)
    assert steps_in(tmp_path) == [6]


def test_a_detector_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        pytest.raises(StorageError, match=r"detector.safetensors: cannot be written: No space"),
        watched(FullDisk("detector.safetensors")),
    ):
        train(toy_parts(tmp_path / "stop"))
    assert steps_in(tmp_path / "stop") == [], "no checkpoint may believe that its detector was written"
    with watched(FullDisk("detector.safetensors", times=1)):
        train(toy_parts(tmp_path / "continue", checkpoint={"on_failure": "continue"}))
    assert "detector.safetensors: cannot be written" in caplog.text
    assert read_detector(only_run(tmp_path / "continue").detector)[1]["step"] > 6


def test_pictures_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.suffix == ".jpg":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match=r"pictures/train_batch_0.jpg: cannot be written: Disk quota exceeded"):
        train(toy_parts(tmp_path / "stop"))
    train(toy_parts(tmp_path / "continue", epochs=1, checkpoint={"on_failure": "continue"}))
    monkeypatch.undo()
    assert steps_in(tmp_path / "continue") == [6]


def test_pictures_are_pictures(tmp_path: Path) -> None:
    train(toy_parts(tmp_path, epochs=1))
    picture = cv2.imread(str(only_run(tmp_path).pictures / "train_batch_0.jpg"))
    assert picture is not None and picture.std() > 1


def test_old_ones_that_cannot_be_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def stuck(moment: str) -> None:
        seen.append(moment)
        if moment == "before unlink step-00000002.json" and seen.count(moment) > 1:  # the first comes with the save
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    seen: list[str] = []
    settings = {"every_n_steps": 2, "on_failure": "continue"}
    with watched(stuck):
        train(toy_parts(tmp_path, epochs=1, checkpoint=settings))
    assert "checkpoints: cannot be written: Permission denied" in caplog.text
    assert steps_in(tmp_path) == [2, 4, 6]


@pytest.mark.parametrize(("free", "said"), [(1000, True), (10**9, False)])
def test_little_room_is_said_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, free: int, said: bool
) -> None:
    monkeypatch.setattr("detkit.training.callbacks.saver.free_bytes", lambda _: free)
    train(toy_parts(tmp_path, epochs=1))
    found = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert any("a checkpoint takes about 64.3 kB" in record.getMessage() for record in found) == said
    assert (
        any("up to 4 are in" in text and "1.0 kB are free" in text for text in (r.getMessage() for r in found)) == said
    )


class SignalAt(L.Callback):
    """Sends a signal to this process after a step."""

    def __init__(self, number: int, step: int) -> None:
        self.number = number
        self.step = step

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            handler = signal.getsignal(self.number)
            assert getattr(handler, "__self__", None).__class__ is Interrupt, "Lightning's own handler came before"
            signal.raise_signal(self.number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_signal_saves_and_ends_with_its_code(tmp_path: Path, number: int, code: int, accumulate: int) -> None:
    """Also where a step has several batches, between which nothing can be saved."""
    handler = signal.getsignal(number)
    parts = toy_parts(tmp_path, trainer={"accumulate_grad_batches": accumulate})
    parts.trainer.keywords.setdefault("callbacks", []).append(SignalAt(number, 3))
    with pytest.raises(SystemExit) as end:
        train(parts)
    assert end.value.code == code and steps_in(tmp_path)[-1] == 3
    assert signal.getsignal(number) is handler


def test_a_save_is_finished_before_the_run_stops(tmp_path: Path) -> None:
    def send(moment: str) -> None:
        if moment == "amid write step-00000004.ckpt.tmp" and not sent:
            sent.append(moment)
            signal.raise_signal(signal.SIGTERM)

    sent: list[str] = []
    with pytest.raises(SystemExit) as end, watched(send):
        train(toy_parts(tmp_path, checkpoint={"every_n_steps": 4, "keep": 100}))
    assert end.value.code == 143 and sent and steps_in(tmp_path) == [4, 5]


def test_a_second_signal_amid_a_save_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detkit.training.run.interrupt.SAME_REQUEST_S", 0.0)

    def send(moment: str) -> None:
        if moment == "amid write step-00000006.ckpt.tmp":
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as end, watched(send):
        train(toy_parts(tmp_path, checkpoint={"every_n_steps": 4}))
    latest = latest_checkpoint(only_run(tmp_path).checkpoints)
    assert end.value.code == 143 and latest is not None and latest.step == 4
    assert [path.name for path in only_run(tmp_path).checkpoints.iterdir() if ".tmp" in path.name] == []


SECOND_SIGNAL = """
import signal, sys
from pathlib import Path
from detkit.errors import run_script
from detkit.training.run import interrupt
from tests.reliability import small_run
from tests.reliability.disk import watched

def step(moment, number):
    signal.raise_signal(signal.SIGTERM) if (moment, number) == ("step", 1) else None

def disk(moment):
    signal.raise_signal(signal.SIGTERM) if moment == "amid write step-00000002.ckpt.tmp" else None

def main(arguments):
    interrupt.SAME_REQUEST_S = 0.0
    small_run.Moments.told = staticmethod(step)
    with watched(disk):
        small_run.start(small_run.write_data(Path(arguments[0], "data")), Path(arguments[0]), "data.num_workers=2")

run_script(main)
"""


@pytest.mark.slow
def test_a_second_signal_amid_a_save_leaves_no_worker_to_wait_for(tmp_path: Path) -> None:
    """A process of its own, with all that the interpreter does at its end, where it would wait for ever."""
    words = [sys.executable, "-c", SECOND_SIGNAL, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert ended.returncode == 143, ended.stderr
    assert not list(tmp_path.rglob("*.ckpt")), "the save was cut short"


def test_the_same_request_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun passes on to its ranks what a terminal or a cluster has sent to all of them."""
    interrupt, now = Interrupt(), [10.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with interrupt.listening():
        signal.raise_signal(signal.SIGTERM)
        now[0] = 10.9
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.number == signal.SIGTERM
        now[0] = 11.0
        with pytest.raises(TrainingStopped) as stopped:
            signal.raise_signal(signal.SIGINT)
    assert (stopped.value.at_step_end, stopped.value.exit_code) == (False, 130)


def test_failures_count_and_end_the_run_only_if_asked() -> None:
    for on_failure, ends in (("stop", True), ("continue", False)):
        failures = FailedWrites(on_failure)  # type: ignore[arg-type]
        assert not failures.must_stop
        with failures.recording(Path("here/metrics.csv")):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        assert (failures.count, failures.must_stop) == (1, ends)
        assert failures.last.startswith("here/metrics.csv: cannot be written: Read-only file system")


PROGRAM = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from detkit.errors import run_script
from detkit.training import train
from tests.reliability.disk import watched
from tests.helpers.slow_disk import FullDisk, Slowly
from tests.helpers.toy import ToyData, toy_parts

def main(arguments):
    runs, full, epochs = arguments
    parts = toy_parts(Path(runs), data=ToyData(length=32), epochs=int(epochs), trainer={"devices": 2})
    parts.trainer.keywords.setdefault("callbacks", []).append(Slowly())
    with watched(FullDisk(full)):
        train(parts)

run_script(main)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("launcher", "full", "code"),
    [
        (("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"), "", 1),  # torchrun's own code
        ((), "step-00000008.ckpt", 74),
    ],
    ids=["torchrun", "Lightning's launcher"],
)
def test_two_ranks_end_together(tmp_path: Path, launcher: tuple[str, ...], full: str, code: int) -> None:
    """SIGTERM comes to the launcher only; a full disk is seen by rank 0 only."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, *launcher, program, tmp_path / "runs", full or "nothing", "3" if full else "1000"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    begun = tmp_path / "runs" / "toy" / "begun"
    while not begun.exists() and process.poll() is None:
        time.sleep(0.05)
    if not full:
        process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == code, said
    begun.unlink()
    manifests = manifests_in(only_run(tmp_path / "runs").checkpoints)
    assert ("cannot be written: No space left on device" in said) == bool(full)
    steps = [manifest.step for manifest in manifests]
    assert steps == [4] if full else (manifests and "stopped and saved" in said), said
