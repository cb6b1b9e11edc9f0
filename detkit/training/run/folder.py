"""Where a run keeps its files, and where an earlier run left off."""

import contextlib
import datetime as dt
import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from detkit.checkpoint import DETECTOR_FILE, CheckpointManifest, latest_checkpoint, read_manifest, storing
from detkit.checkpoint.file import new_folder, replace
from detkit.errors import CheckpointError, nearest_path

VARIABLE = "DETKIT_RUN_FOLDER"  # of the environment: read by the ranks that rank 0 starts
LOG = logging.getLogger(__name__)


class RunFolder(NamedTuple):
    """The files of a run."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    def write_recipe(self, text: str) -> None:
        """Written at every start, so that the folder alone can be resumed; never left half written."""
        with storing(self.recipe):
            replace(self.recipe, lambda file: file.write(text.encode()))

    @property
    def lock(self) -> Path:
        return self.path / "run.lock"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def metrics_log(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def non_finite(self) -> Path:
        return self.path / "non_finite"

    @property
    def detector(self) -> Path:
        return self.path / DETECTOR_FILE

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"

    @property
    def wandb_id(self) -> Path:
        return self.path / "wandb_id.txt"


def create_folder(runs: Path, rank: int) -> RunFolder:
    """The folder of a new run: rank 0 makes it, named by the time.

    Other ranks write nothing. Those that rank 0 starts read the folder from the environment variable that
    ``shared_with_child_ranks`` sets. Those that torchrun or SLURM started get a placeholder until ``RanksWatch``
    has sent them the folder.
    """
    if rank != 0:
        return RunFolder(Path(os.environ.get(VARIABLE, runs / "of rank 0")))
    with storing(runs):
        return RunFolder(new_folder(runs))


@contextlib.contextmanager
def shared_with_child_ranks(folder: RunFolder) -> Iterator[None]:
    """Sets an environment variable so that child ranks reuse this run folder."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(folder.path)
    try:
        yield
    finally:
        del os.environ[VARIABLE]
        if before is not None:
            os.environ[VARIABLE] = before


def started_by_rank_0(rank: int) -> bool:
    """Whether Lightning started this process, and not torchrun or SLURM."""
    return rank != 0 and VARIABLE in os.environ


@contextlib.contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Lock the folder against other runs for as long as this process lives; for rank 0.

    Note [record lock]: the kernel releases a record lock when its process ends, however it ends. A lock
    by flock would be shared with data loader workers, which outlive a killed run by seconds. A record
    lock is also released when any descriptor of the file is closed, so no other code may open it here.

    Raises:
        CheckpointError: if another process has it.
        StorageError: if the lock's file cannot be written.
    """
    with storing(folder.lock):
        handle = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _acquire(handle, folder)
        with storing(folder.lock):
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(_lock_owner()).encode())
        yield
    finally:
        os.close(handle)


def find_checkpoint(runs: Path, resume: bool | str) -> CheckpointManifest:
    """The checkpoint to go on from; it lies in ``<run folder>/checkpoints``.

    Args:
        runs: folder of all runs of the recipe.
        resume: True for the latest of them that has a checkpoint; or the path of a run or checkpoint.

    Raises:
        CheckpointError: if there is no complete checkpoint.
    """
    if resume is True:
        for folder in sorted(runs.glob("*/"), reverse=True):
            if manifest := latest_checkpoint(RunFolder(folder).checkpoints):
                return manifest
        raise CheckpointError(f"resume=true: no run in {runs} has a complete checkpoint; start without resume")
    path = Path(str(resume)).expanduser()
    if path.suffix == ".ckpt":
        return read_manifest(path)
    manifest = latest_checkpoint(RunFolder(path).checkpoints)
    if manifest is None:
        folder, hint = RunFolder(path).checkpoints, nearest_path(path)
        raise CheckpointError(f"resume={path}: no complete checkpoint in {folder}{hint}")
    return manifest


def _acquire(handle: int, folder: RunFolder) -> None:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            LOG.warning("warning: %s: cannot be locked (%s): a second run here would go unnoticed", folder.lock, error)
            return
        raise CheckpointError(
            f"{folder.path}: is in use by {_describe_owner(os.read(handle, 1000))}; wait for it to end, stop it, "
            "or begin a run of its own without resume"
        ) from error


def _lock_owner() -> dict[str, int | str]:
    now = dt.datetime.now().astimezone().isoformat(" ", "seconds")
    return {"process": os.getpid(), "host": socket.gethostname(), "since": now}


def _describe_owner(text: bytes) -> str:
    try:
        who = json.loads(text)
        return f"process {who['process']} on {who['host']} since {who['since']}"
    except (ValueError, TypeError, LookupError):
        return "another process"
