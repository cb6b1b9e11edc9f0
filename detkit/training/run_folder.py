"""Where a run keeps its files, and where an earlier run left off."""

import datetime as dt
import os
from itertools import count
from pathlib import Path
from typing import NamedTuple

from detkit.checkpoint import DETECTOR_FILE, Mark, latest_checkpoint, read_mark
from detkit.errors import CheckpointError

TIME_FORMAT = "%Y-%m-%d_%H-%M-%S"
VARIABLE = "DETKIT_RUN_FOLDER"  # tells processes that rank 0 starts


class RunFolder(NamedTuple):
    """The files of a run."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

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


def begin_folder(runs: Path, rank: int) -> RunFolder:
    """The folder of a new run: rank 0 makes it, named by the time.

    Other ranks write nothing. Those that rank 0 starts learn the folder from the environment; those
    that torchrun or SLURM started beside it get a name that stands for it until the run can say it.
    """
    if rank != 0:
        return RunFolder(Path(os.environ.get(VARIABLE, runs / "of rank 0")))
    folder = _new_folder(runs)
    os.environ[VARIABLE] = str(folder.path)
    return folder


def find_checkpoint(runs: Path, resume: bool | str) -> Mark:
    """The checkpoint to go on from; it lies in ``<run folder>/checkpoints``.

    Args:
        runs: folder of all runs of the recipe.
        resume: True for the latest of them that has a checkpoint; or the path of a run or checkpoint.

    Raises:
        CheckpointError: if there is no complete checkpoint.
    """
    if resume is True:
        for folder in sorted(runs.glob("*/"), reverse=True):
            if mark := latest_checkpoint(RunFolder(folder).checkpoints):
                return mark
        raise CheckpointError(f"resume=true: no run in {runs} has a complete checkpoint; start without resume")
    path = Path(str(resume)).expanduser()
    if path.suffix == ".ckpt":
        return read_mark(path)
    mark = latest_checkpoint(RunFolder(path).checkpoints)
    if mark is None:
        raise CheckpointError(f"resume={path}: no complete checkpoint in {RunFolder(path).checkpoints}")
    return mark


def _new_folder(runs: Path) -> RunFolder:
    """Two runs of one second get two folders."""
    name = dt.datetime.now().astimezone().strftime(TIME_FORMAT)
    path = runs / name
    for number in count(2):
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            path = runs / f"{name}_{number}"
        else:
            break
    return RunFolder(path)
