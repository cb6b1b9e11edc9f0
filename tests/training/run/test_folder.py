"""One folder for each run, known to the processes that rank 0 starts, and held by one run at a time."""

import contextlib
import errno
import fcntl
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from typing_extensions import override

from detkit.errors import CheckpointError, StorageError
from detkit.training import train
from detkit.training.run.folder import (
    VARIABLE,
    RunFolder,
    create_folder,
    locked,
    shared_with_child_ranks,
    started_by_rank_0,
)
from tests.helpers.toy import toy_parts
from tests.reliability import forked


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


@contextlib.contextmanager
def held(folder: RunFolder) -> Iterator[int]:
    """Another process that has the folder, and a child of it as data loaders have."""
    there, said = os.pipe()

    def hold() -> None:
        os.setpgrp()
        with locked(folder):
            os.fork()
            os.write(said, b".")
            time.sleep(60)

    process = forked.Forked(hold, folder.path / "said.txt")
    assert os.read(there, 1) == b"."
    yield process.process
    os.killpg(process.process, signal.SIGKILL)
    process.wait()
    os.close(there)
    os.close(said)


@pytest.fixture
def holder(folder: RunFolder) -> Iterator[int]:
    with held(folder) as process:
        yield process


def test_runs_of_one_second_get_their_own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detkit.checkpoint.file.TIME_FORMAT", "always")
    folders = [create_folder(tmp_path / "runs", rank=0).path for _ in range(3)]
    assert [folder.name for folder in folders] == ["always", "always_2", "always_3"]
    assert all(folder.is_dir() for folder in folders)


def test_started_processes_share_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not create_folder(tmp_path, rank=1).path.exists()  # torchrun: it learns the folder later
    assert not started_by_rank_0(rank=1)
    folder = create_folder(tmp_path, rank=0)
    with shared_with_child_ranks(folder):
        assert create_folder(tmp_path, rank=1).path == folder.path
        assert started_by_rank_0(rank=1) and not started_by_rank_0(rank=0)
    assert not started_by_rank_0(rank=1)


def test_only_what_a_run_starts_is_told_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a run that is resumed: its other ranks leave the exit code to rank 0."""

    class Told(L.Callback):
        @override
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            told.append(os.environ.get(VARIABLE))

    told: list[str | None] = []
    monkeypatch.setenv(VARIABLE, "/of/another/run")
    for epochs, resume in ((1, None), (2, True)):
        parts = toy_parts(tmp_path, epochs=epochs, resume=resume)
        parts.trainer.keywords["callbacks"].append(Told())
        run = train(parts).folder
    assert told == [str(run)] * 2
    assert os.environ[VARIABLE] == "/of/another/run"


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(StorageError, match=r"runs: cannot be written: Not a directory"):
        create_folder(tmp_path / "runs", rank=0)
    with (
        pytest.raises(StorageError, match=r"runs/run.lock: cannot be written: Not a directory"),
        locked(RunFolder(tmp_path / "runs")),
    ):
        pass


def test_a_second_run_is_refused(folder: RunFolder, holder: int) -> None:
    said = rf"{folder.path}: is in use by process {holder} on {os.uname().nodename} since 20..-..-.. ..:..:..\+?"
    with pytest.raises(CheckpointError, match=said), locked(folder):
        pass
    assert str(holder) in folder.lock.read_text(), "the note of the first stays"


def test_a_killed_run_lets_go_although_its_workers_live(folder: RunFolder, holder: int) -> None:
    os.kill(holder, signal.SIGKILL)
    os.waitid(os.P_PID, holder, os.WEXITED | os.WNOWAIT)
    with locked(folder):
        assert str(os.getpid()) in folder.lock.read_text()
    with locked(folder):  # and again, once it was let go of
        pass


def test_resume_of_a_run_that_is_under_way(tmp_path: Path) -> None:
    run = train(toy_parts(tmp_path, epochs=1)).folder
    recipe = (run / "recipe.yaml").stat().st_mtime_ns
    said = r"is in use by process \d+ on .*; wait until it ends"
    with held(RunFolder(run)), pytest.raises(CheckpointError, match=said):
        train(toy_parts(tmp_path, epochs=1, resume=True))
    assert (run / "recipe.yaml").stat().st_mtime_ns == recipe
    train(toy_parts(tmp_path, epochs=1, resume=True))


@pytest.mark.usefixtures("holder")
def test_a_note_that_cannot_be_read(folder: RunFolder) -> None:
    folder.lock.write_text("{")
    with pytest.raises(CheckpointError, match="is in use by another process"), locked(folder):
        pass


def test_a_file_system_without_locks_is_said(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    with locked(folder), caplog.at_level(logging.WARNING):
        assert str(os.getpid()) in folder.lock.read_text()
    assert (
        "run.lock: cannot be locked ([Errno 37] No locks available): a second run in this folder would not be detected"
        in (caplog.text)
    )
