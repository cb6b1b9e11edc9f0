"""The folder of a run: its files, its lock, and the checkpoint to resume from."""

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

from detkit.checkpoint import DETECTOR_FILE, CheckpointManifest, latest_checkpoint, read_manifest, storage_errors
from detkit.checkpoint.file import new_folder, replace
from detkit.errors import CheckpointError, nearest_path

VARIABLE = "DETKIT_RUN_FOLDER"  # environment variable for the ranks that rank 0 starts
LOG = logging.getLogger(__name__)


class RunFolder:
    """The paths of a run's files.

    Args:
        path: folder of the run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.lock = path / "run.lock"
        self.metrics = path / "metrics.csv"
        self.metrics_log = path / "metrics.jsonl"
        self.non_finite = path / "non_finite"
        self.detector = path / DETECTOR_FILE
        self.checkpoints = path / "checkpoints"
        self.pictures = path / "pictures"
        self.wandb_id = path / "wandb_id.txt"

    def write_recipe(self, text: str) -> None:
        """Write the recipe, so that the run can be resumed from its folder alone."""
        with storage_errors(self.recipe):
            replace(self.recipe, lambda file: file.write(text.encode()))


def create_folder(runs: Path, rank: int) -> RunFolder:
    """The folder of a new run; rank 0 creates it and names it by the time.

    Other ranks write no files. Ranks that rank 0 started read the folder from the environment variable that
    ``shared_with_child_ranks`` sets. Ranks that torchrun or SLURM started use a placeholder until ``RanksWatch``
    sends them the folder.
    """
    if rank != 0:
        return RunFolder(Path(os.environ.get(VARIABLE, runs / "of rank 0")))
    with storage_errors(runs):
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
    """Lock the folder against other runs while the context is active; for rank 0.

    Note [record lock]: the kernel releases a record lock when the process ends for any reason. A lock by flock would be
    shared with data loader workers, which may run for seconds after a killed run. A record lock is also released when
    any descriptor of the file is closed, so no other code of this process may open the file.

    Raises:
        CheckpointError: if another process has locked the folder.
        StorageError: if the lock file cannot be written.
    """
    with storage_errors(folder.lock):
        handle = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _acquire(handle, folder)
        with storage_errors(folder.lock):
            os.ftruncate(handle, 0)
            now = dt.datetime.now().astimezone().isoformat(" ", "seconds")
            owner = {"process": os.getpid(), "host": socket.gethostname(), "since": now}
            os.write(handle, json.dumps(owner).encode())
        yield
    finally:
        os.close(handle)


def find_checkpoint(runs: Path, resume: bool | str) -> CheckpointManifest:
    """The checkpoint to resume from; it is in ``<run folder>/checkpoints``.

    Args:
        runs: folder of all runs of the recipe.
        resume: True: the latest run with a checkpoint; or the path of a run or checkpoint.

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
            LOG.warning(
                "warning: %s: cannot be locked (%s): a second run in this folder would not be detected",
                folder.lock,
                error,
            )
            return
        raise CheckpointError(
            f"{folder.path}: is in use by {_describe_owner(os.read(handle, 1000))}; wait until it ends, stop it, "
            "or start a new run without resume"
        ) from error


def _describe_owner(text: bytes) -> str:
    try:
        owner = json.loads(text)
        return f"process {owner['process']} on {owner['host']} since {owner['since']}"
    except (ValueError, TypeError, LookupError):
        return "another process"
