"""One save of a run as training makes it: a detector, a checkpoint with its manifest, and the removal of an old one."""

from pathlib import Path
from typing import Any

import torch

from detkit.checkpoint import (
    checkpoint_path,
    latest_checkpoint,
    read_checkpoint,
    read_detector,
    remove_leftovers,
    write_checkpoint,
    write_detector,
)
from detkit.training import CheckpointSettings
from detkit.training.callbacks.saver import CheckpointSaver
from detkit.training.run.failed_writes import FailedWrites
from detkit.training.run.folder import RunFolder
from detkit.training.run.interrupt import Interrupt

BEFORE, NEW = 2, 3  # steps


def begin(path: Path) -> RunFolder:
    """A run that has saved two checkpoints and a detector."""
    folder = RunFolder(path)
    save(folder, 1)
    save(folder, BEFORE)
    return folder


def save(folder: RunFolder, step: int) -> None:
    """Save as at the end of an epoch; of the checkpoints two are kept."""
    write_detector(folder.detector, {"weights": weights(step)}, {"step": step})
    path, state = checkpoint_path(folder.checkpoints, step), {"weights": weights(step), "step": step}
    write_checkpoint(path, state, step=step, epoch=step, score=step / 10, facts={"threads": 1})
    best: Any = None  # of no concern here
    CheckpointSaver(CheckpointSettings(keep=2), folder, best, Interrupt(), FailedWrites())._prune()


def what_is_left(folder: RunFolder) -> tuple[int, int]:
    """Steps of the latest checkpoint and of the detector, once every byte was found to be right.

    Raises:
        AssertionError: if there is no checkpoint, or one with other content.
        CheckpointError: if the detector cannot be read.
    """
    manifest = latest_checkpoint(folder.checkpoints)
    assert manifest is not None, "no checkpoint is left"
    state = read_checkpoint(manifest.path)
    assert state["step"] == manifest.step and torch.equal(state["weights"], weights(manifest.step)), "other content"
    tensors, metadata = read_detector(folder.detector)
    assert torch.equal(tensors["weights"], weights(metadata["step"])), "another detector"
    return manifest.step, metadata["step"]


def start_again(folder: RunFolder) -> None:
    """What a resumed run does: clean up, and save the same step again."""
    for path in (folder.path, folder.checkpoints):
        remove_leftovers(path)
    save(folder, NEW)
    assert what_is_left(folder) == (NEW, NEW), "the step cannot be saved again"
    files = sorted(path.name for path in folder.checkpoints.iterdir())
    assert files == [f"step-0000000{step}.{kind}" for step in (BEFORE, NEW) for kind in ("ckpt", "json")], files


def weights(step: int) -> torch.Tensor:
    return torch.full((3, 10_000), float(step))
