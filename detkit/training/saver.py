"""When a training checkpoint is saved, and which ones are kept."""

import hashlib
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO
from typing_extensions import override

from detkit.checkpoint import (
    checkpoint_path,
    marks_in,
    read_checkpoint,
    remove_checkpoint,
    remove_leftovers,
    write_checkpoint,
)
from detkit.training.best import BestDetector
from detkit.training.finite import check_finite
from detkit.training.interrupt import Interrupt, TrainingStopped
from detkit.training.run_folder import RunFolder


@dataclass(frozen=True)
class CheckpointSettings:
    """When to save.

    Args:
        every_n_steps: optimizer steps between saves within an epoch; null: at the end of epochs only.
        keep: the latest so many are kept, and the best one.
        monitor: the number that decides on the best, higher is better.

    Raises:
        ValueError: if fewer than two are to be kept, or every_n_steps is less than 1.
    """

    every_n_steps: int | None = None
    keep: int = 2
    monitor: str = "val/AP"

    def __post_init__(self) -> None:
        if self.keep < 2:
            raise ValueError(f"keep must be at least 2, so that one is whole while another is written; got {self.keep}")
        if self.every_n_steps is not None and self.every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, or null; got {self.every_n_steps}")


class Saver(Checkpoint):
    """Save at the end of every epoch, every N steps between, and when the user stops the run.

    All of them lie on borders of optimizer steps, after every other callback has seen the step.

    Args:
        settings: when and how many.
        folder: of the run.
        best: knows the score of a step, and what a detector is rebuilt from.
        interrupt: knows whether to stop.
    """

    def __init__(
        self, settings: CheckpointSettings, folder: RunFolder, best: BestDetector, interrupt: Interrupt
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.best = best
        self.interrupt = interrupt
        self._step = 0

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step = trainer.global_step
        if trainer.is_global_zero:
            remove_leftovers(self.folder.checkpoints)
            for mark in marks_in(self.folder.checkpoints):
                if mark.step > trainer.global_step:  # of the branch that this resume leaves
                    remove_checkpoint(mark.path)

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return  # gradients are being accumulated
        self._step = trainer.global_step
        if trainer.is_last_batch:
            return  # the end of the epoch comes first, with its validation
        self.interrupt.stop_if_requested(trainer)
        if self.settings.every_n_steps and trainer.global_step % self.settings.every_n_steps == 0:
            self._save(trainer, trainer.current_epoch)

    @override
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.interrupt.stop_if_requested(trainer)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer, trainer.current_epoch + 1)
        self.interrupt.stop_if_requested(trainer)

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, TrainingStopped) and exception.at_border and trainer.global_step > 0:
            self._save(trainer, trainer.current_epoch)

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        check_finite(checkpoint["state_dict"], trainer.global_step)
        checkpoint["detkit"] = self.best.metadata
        if trainer.validating:
            _begin_validation_again(checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"])

    def _save(self, trainer: L.Trainer, epoch: int) -> None:
        path = checkpoint_path(self.folder.checkpoints, trainer.global_step)
        known = {
            "step": trainer.global_step,
            "epoch": epoch,
            "score": self.best.score_of(trainer.global_step),
            "facts": facts(self.best.metadata, trainer.world_size),
        }
        trainer.save_checkpoint(path, storage_options=known)
        if trainer.is_global_zero:
            self._prune()

    def _prune(self) -> None:
        marks = marks_in(self.folder.checkpoints)
        scored = [mark for mark in marks if mark.score is not None]
        kept = [*marks[-self.settings.keep :], *sorted(scored, key=lambda mark: mark.score or 0.0)[-1:]]
        for mark in marks:
            if mark not in kept:
                remove_checkpoint(mark.path)


class DetkitCheckpointIO(CheckpointIO):
    """Lightning's way to detkit's one writer and one reader."""

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_checkpoint(Path(path), checkpoint, **storage_options)

    @override
    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(path)

    @override
    def remove_checkpoint(self, path: Any) -> None:
        remove_checkpoint(Path(path))


def facts(metadata: dict[str, Any], world_size: int) -> dict[str, Any]:
    """What a later resume can compare itself with."""
    recipe = json.dumps(metadata["recipe"], sort_keys=True)
    return {
        "recipe_sha256": hashlib.sha256(recipe.encode()).hexdigest(),
        "data_fingerprint": metadata["data_fingerprint"],
        "versions": {
            "detkit": metadata["detkit_version"],
            "lightning": L.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        "threads": torch.get_num_threads(),
        "world_size": world_size,
    }


def _begin_validation_again(progress: dict[str, Any]) -> None:
    """Make a stop within validation look like one within its first batch.

    Lightning would go on after the last batch, but the metric holds nothing of those before.
    """
    for counts in (progress["total"], progress["current"]):
        counts.update(ready=1, started=1, processed=0, completed=0)
    progress["is_last_batch"] = False
