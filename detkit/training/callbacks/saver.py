"""When a training checkpoint is saved, and which ones are kept."""

import logging
import time
from pathlib import Path
from typing import TypedDict

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO
from typing_extensions import override

from detkit.checkpoint import (
    CheckpointState,
    PlainData,
    checkpoint_path,
    free_bytes,
    manifests_in,
    read_checkpoint,
    readable,
    remove_checkpoint,
    remove_leftovers,
    storing,
    write_checkpoint,
)
from detkit.errors import StorageError
from detkit.training.callbacks.best import BestDetector
from detkit.training.distributed.agreement import StepRequests, TrainingStopped, agreed
from detkit.training.run.failed_writes import FailedWrites
from detkit.training.run.folder import RunFolder
from detkit.training.run.interrupt import Interrupt, stop
from detkit.training.run.resume_check import run_facts
from detkit.training.settings import CheckpointSettings

LOG = logging.getLogger(__name__)


class SaveOptions(TypedDict):
    """What ``write_checkpoint`` gets beside the state, through Lightning's ``save_checkpoint``."""

    step: int
    epoch: int
    score: float | None
    facts: PlainData


class Saver(Checkpoint):
    """Save at the end of every epoch, every N steps or minutes between, and when the user stops the run.

    All of them lie on borders of optimizer steps, after every other callback has seen the step.

    Args:
        settings: when and how many.
        folder: of the run.
        best: knows the score of a step, and what a detector is rebuilt from.
        interrupt: knows whether to stop.
        failures: knows what could not be written.

    Attributes:
        requests: to stop by a signal, to end the run because of a failed write, to save by the clock.
    """

    def __init__(
        self,
        settings: CheckpointSettings,
        folder: RunFolder,
        best: BestDetector,
        interrupt: Interrupt,
        failures: FailedWrites,
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.best = best
        self.interrupt = interrupt
        self.failures = failures
        self.requests = StepRequests(lambda: interrupt.number, lambda: failures.end_the_run, self._is_due)
        self._step = 0
        self._saved_step = 0
        self._saved_at = 0.0  # seconds, by this rank's clock
        self._unsaved = ""  # why the last save failed, on all ranks

    @override
    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.interrupt.stop_if_requested(trainer)

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        _begin_next_epoch(trainer)
        self._step = self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()
        if trainer.is_global_zero:
            with storing(self.folder.checkpoints):
                for folder in (self.folder.path, self.folder.checkpoints):
                    remove_leftovers(folder)
                for manifest in manifests_in(self.folder.checkpoints):
                    if manifest.step > trainer.global_step:  # of the branch that this resume leaves
                        remove_checkpoint(manifest.path)
            self._warn_if_short_of_room(pl_module)
        self.interrupt.stop_if_requested(trainer)

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let Lightning forget the last validation: some of its resumes do, and later checkpoints would differ."""
        trainer.fit_loop.epoch_loop.val_loop.batch_progress.reset_on_run()

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return  # gradients are being accumulated
        self._step = trainer.global_step
        if trainer.is_last_batch:
            return  # the end of the epoch comes first, with its validation
        signal, fails, is_due = self.requests.agreed(trainer)
        self._end_if(trainer, signal, fails)
        if is_due or (self.settings.every_n_steps and trainer.global_step % self.settings.every_n_steps == 0):
            self._save(trainer, trainer.current_epoch)

    @override
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.interrupt.stop_if_requested(trainer)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end_if(trainer, 0, *agreed(trainer, self.failures.end_the_run))  # no checkpoint beyond a lost row
        self._save(trainer, trainer.current_epoch + 1)
        self._end_if(trainer, *agreed(trainer, self.interrupt.number, self.failures.end_the_run))

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end_if(trainer, 0, *agreed(trainer, self.failures.end_the_run))
        self._require_saved()

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, TrainingStopped) or not exception.at_border or trainer.global_step == 0:
            return
        if trainer.global_step != self._saved_step or trainer.validating:
            self._save(trainer, trainer.current_epoch)
        self._require_saved()

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: CheckpointState) -> None:
        checkpoint["detkit"] = self.best.metadata
        if trainer.validating:
            _begin_validation_again(checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"])

    def _is_due(self) -> bool:
        minutes = self.settings.every_minutes
        return minutes is not None and time.monotonic() - self._saved_at >= minutes * 60

    def _end_if(self, trainer: L.Trainer, signal: int, fails: int) -> None:
        if fails:
            self.failures.raise_together(trainer)
        stop(signal)

    def _save(self, trainer: L.Trainer, epoch: int) -> None:
        path = checkpoint_path(self.folder.checkpoints, trainer.global_step)
        options: SaveOptions = {
            "step": trainer.global_step,
            "epoch": epoch,
            "score": self.best.score_of(trainer.global_step),
            "facts": run_facts(self.best.metadata, trainer.world_size),
        }
        failed_before = self.failures.count
        trainer.save_checkpoint(path, storage_options=options)
        unsaved = self.failures.last if self.failures.count > failed_before else ""
        self._unsaved = trainer.strategy.broadcast(unsaved)
        self._saved_at = time.monotonic()
        if self._unsaved:
            if self.settings.on_failure == "stop":
                self._require_saved()
            return
        self._saved_step = trainer.global_step
        if trainer.is_global_zero:
            with self.failures.noting(self.folder.checkpoints):
                self._prune()

    def _require_saved(self) -> None:
        """For all ranks, which know alike; at the end of a run there is no next save."""
        if self._unsaved:
            raise StorageError(self._unsaved)

    def _prune(self) -> None:
        """The newest is whole by now: only what has its size and its manifest counts."""
        manifests = manifests_in(self.folder.checkpoints)
        scored = [manifest for manifest in manifests if manifest.score is not None]
        kept = [*manifests[-self.settings.keep :], *sorted(scored, key=lambda manifest: manifest.score or 0.0)[-1:]]
        for manifest in manifests:
            if manifest not in kept:
                remove_checkpoint(manifest.path)

    def _warn_if_short_of_room(self, pl_module: L.LightningModule) -> None:
        """Before hours of training, not after them."""
        manifests = manifests_in(self.folder.checkpoints)
        # weights, their average, and two numbers of the optimizer for each
        size = manifests[-1].size if manifests else 4 * sum(tensor.nbytes for tensor in pl_module.state_dict().values())
        most = self.settings.keep + 2  # the best, and the one that is being written
        free = free_bytes(self.folder.checkpoints)
        if free is not None and free < size * (most - len(manifests)):
            LOG.warning(
                "warning: a checkpoint takes about %s, and %d lie in %s at a time; %s are free there",
                *(readable(size), most, self.folder.checkpoints, readable(free)),
            )


class DetkitCheckpointIO(CheckpointIO):
    """Lightning's way to detkit's one writer and one reader.

    Args:
        failures: where it is noted that a checkpoint could not be written.
    """

    def __init__(self, failures: FailedWrites) -> None:
        self.failures = failures

    @override
    def save_checkpoint(
        self, checkpoint: CheckpointState, path: str | Path, storage_options: SaveOptions | None = None
    ) -> None:
        assert storage_options is not None, "Saver alone saves"
        path = Path(path)
        try:
            write_checkpoint(path, checkpoint, **storage_options)
        except StorageError as error:
            manifests = manifests_in(path.parent)
            left = f"the last good checkpoint is {manifests[-1].path}" if manifests else "there is no checkpoint yet"
            self.failures.note(f"{error}; {left}")

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: object = None, weights_only: bool | None = None
    ) -> CheckpointState:
        return read_checkpoint(path)

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        remove_checkpoint(Path(path))


def _begin_next_epoch(trainer: L.Trainer) -> None:
    """Make a resume from the end of an epoch the begin of the next one, where Lightning would end the epoch twice.

    It does so if there is a max_steps: then it takes every resume for one within an epoch.
    """
    loop = trainer.fit_loop
    if loop.restarted_on_epoch_end:
        loop.epoch_progress.increment_completed()
        loop.epoch_loop.restarting = False
        loop.reset_restart_stage()


def _begin_validation_again(progress: CheckpointState) -> None:
    """Make a stop within validation look like one within its first batch.

    Lightning would go on after the last batch, but the metric holds nothing of those before.
    """
    for counts in (progress["total"], progress["current"]):
        counts.update(ready=1, started=1, processed=0, completed=0)
    progress["is_last_batch"] = False
