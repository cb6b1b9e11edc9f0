"""Save training checkpoints and remove old ones."""

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
    format_bytes,
    free_bytes,
    manifests_in,
    read_checkpoint,
    remove_checkpoint,
    remove_leftovers,
    storage_errors,
    write_checkpoint,
)
from detkit.errors import StorageError
from detkit.training.callbacks.best import BestDetector
from detkit.training.distributed.agreement import StepRequests, TrainingStopped, max_over_ranks
from detkit.training.run.failed_writes import FailedWrites
from detkit.training.run.folder import RunFolder
from detkit.training.run.interrupt import Interrupt, stop
from detkit.training.run.resume_check import run_facts
from detkit.training.settings import CheckpointSettings

LOG = logging.getLogger(__name__)


class SaveOptions(TypedDict):
    """Arguments of ``write_checkpoint`` besides the state, passed through Lightning's ``save_checkpoint``."""

    step: int
    epoch: int
    score: float | None
    facts: PlainData


class CheckpointSaver(Checkpoint):
    """Save at the end of every epoch, every N steps or minutes, and when the user stops the run.

    Checkpoints are saved only after complete optimizer steps, and after all other callbacks.

    Args:
        settings: when to save, and how many checkpoints to keep.
        folder: folder of the run.
        best: gives the score of a step, and the metadata of the detector.
        interrupt: requests a stop.
        failures: records failures to write.

    Attributes:
        requests: signal to stop, end because of a failed write, save by ``every_minutes``.
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
        self.requests = StepRequests(lambda: interrupt.number, lambda: failures.must_stop, self._is_due)
        self._step = 0
        self._saved_step = 0
        self._saved_at = 0.0  # seconds, by the clock of this rank
        self._save_error = ""  # why the last save failed, equal on all ranks

    @override
    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.interrupt.stop_if_requested(trainer)

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        _begin_next_epoch(trainer)
        self._step = self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()
        if trainer.is_global_zero:
            with storage_errors(self.folder.checkpoints):
                for folder in (self.folder.path, self.folder.checkpoints):
                    remove_leftovers(folder)
                for manifest in manifests_in(self.folder.checkpoints):
                    if manifest.step > trainer.global_step:  # from steps after the one that is resumed
                        remove_checkpoint(manifest.path)
            self._warn_if_disk_space_is_short(pl_module)
        self.interrupt.stop_if_requested(trainer)

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reset the counts of the last validation, which Lightning keeps in some resumed runs only.

        Without it the later checkpoints of a resumed run would differ.
        """
        trainer.fit_loop.epoch_loop.val_loop.batch_progress.reset_on_run()

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return  # gradients are being accumulated
        self._step = trainer.global_step
        if trainer.is_last_batch:
            return  # on_train_epoch_end saves, after the validation
        signal, fails, is_due = self.requests.agreed(trainer)
        self._stop_if_needed(trainer, signal, fails)
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
        # First, so that there is no checkpoint after a missing row of metrics.csv.
        self._stop_if_needed(trainer, 0, *max_over_ranks(trainer, self.failures.must_stop))
        self._save(trainer, trainer.current_epoch + 1)
        self._stop_if_needed(trainer, *max_over_ranks(trainer, self.interrupt.number, self.failures.must_stop))

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop_if_needed(trainer, 0, *max_over_ranks(trainer, self.failures.must_stop))
        self._require_saved()

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, TrainingStopped) or not exception.at_step_end or trainer.global_step == 0:
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

    def _stop_if_needed(self, trainer: L.Trainer, signal: int, fails: int) -> None:
        if fails:
            raise StorageError(trainer.strategy.broadcast(self.failures.last))  # on all ranks together
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
        error = self.failures.last if self.failures.count > failed_before else ""
        self._save_error = trainer.strategy.broadcast(error)
        self._saved_at = time.monotonic()
        if self._save_error:
            if self.settings.on_failure == "stop":
                self._require_saved()
            return
        self._saved_step = trainer.global_step
        if trainer.is_global_zero:
            with self.failures.recording(self.folder.checkpoints):
                self._prune()

    def _require_saved(self) -> None:
        """Raise on all ranks if the last save failed."""
        if self._save_error:
            raise StorageError(self._save_error)

    def _prune(self) -> None:
        """Remove all checkpoints but the newest ones and the best one."""
        manifests = manifests_in(self.folder.checkpoints)
        scored = [manifest for manifest in manifests if manifest.score is not None]
        kept = [*manifests[-self.settings.keep :], *sorted(scored, key=lambda manifest: manifest.score or 0.0)[-1:]]
        for manifest in manifests:
            if manifest not in kept:
                remove_checkpoint(manifest.path)

    def _warn_if_disk_space_is_short(self, pl_module: L.LightningModule) -> None:
        """Warn before the training if the disk is too small for the checkpoints."""
        manifests = manifests_in(self.folder.checkpoints)
        # weights, their average, and two values of the optimizer per weight
        size = manifests[-1].size if manifests else 4 * sum(tensor.nbytes for tensor in pl_module.state_dict().values())
        most = self.settings.keep + 2  # the best one, and the one that is being written
        free = free_bytes(self.folder.checkpoints)
        if free is not None and free < size * (most - len(manifests)):
            LOG.warning(
                "warning: a checkpoint takes about %s, and up to %d are in %s at a time; %s are free there",
                *(format_bytes(size), most, self.folder.checkpoints, format_bytes(free)),
            )


class DetkitCheckpointIO(CheckpointIO):
    """Lightning's interface to ``write_checkpoint`` and ``read_checkpoint``.

    Args:
        failures: records failures to write.
    """

    def __init__(self, failures: FailedWrites) -> None:
        self.failures = failures

    @override
    def save_checkpoint(
        self, checkpoint: CheckpointState, path: str | Path, storage_options: SaveOptions | None = None
    ) -> None:
        assert storage_options is not None, "only CheckpointSaver saves checkpoints"
        path = Path(path)
        try:
            write_checkpoint(path, checkpoint, **storage_options)
        except StorageError as error:
            manifests = manifests_in(path.parent)
            last = f"the last good checkpoint is {manifests[-1].path}" if manifests else "there is no checkpoint yet"
            self.failures.record(f"{error}; {last}")

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: object = None, weights_only: bool | None = None
    ) -> CheckpointState:
        return read_checkpoint(path)

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        remove_checkpoint(Path(path))


def _begin_next_epoch(trainer: L.Trainer) -> None:
    """Start a run that is resumed at the end of an epoch with the next epoch.

    If max_steps is set, Lightning treats every resume as one within an epoch, and would end the epoch twice.
    """
    loop = trainer.fit_loop
    if loop.restarted_on_epoch_end:
        loop.epoch_progress.increment_completed()
        loop.epoch_loop.restarting = False
        loop.reset_restart_stage()


def _begin_validation_again(progress: CheckpointState) -> None:
    """Set the counts of an interrupted validation to its first batch.

    Lightning would continue after the last batch, but the metric has no results of the earlier batches.
    """
    for counts in (progress["total"], progress["current"]):
        counts.update(ready=1, started=1, processed=0, completed=0)
    progress["is_last_batch"] = False
