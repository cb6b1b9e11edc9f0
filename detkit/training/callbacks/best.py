"""Write the detector of the best epoch so far."""

import lightning as L
from torch import nn
from typing_extensions import override

from detkit.checkpoint import CheckpointState, write_detector
from detkit.errors import RecipeError
from detkit.training.callbacks.ema import averaged_module
from detkit.training.module import DetectionModule, validation_numbers
from detkit.training.parts import Metric
from detkit.training.run.failed_writes import FailedWrites
from detkit.training.run.folder import RunFolder
from detkit.training.settings import RunMetadata


class BestDetector(L.Callback):
    """Write detector.safetensors at every new best score; before the first validation, after every epoch.

    Args:
        monitor: the number that selects the best epoch; higher is better.
        folder: folder of the run.
        metadata: metadata of the detector file.
        failures: records failures to write; the earlier file is kept.

    Attributes:
        score: best score so far; None before the first validation.
        epoch: the best epoch, counted from 1.
        numbers: all numbers of the best epoch.
        per_class: the metric's number of each class in the best epoch.
        metric: the metric that gives the numbers; set at the start of the fit.
    """

    def __init__(self, monitor: str, folder: RunFolder, metadata: RunMetadata, failures: FailedWrites) -> None:
        self.monitor = monitor
        self.folder = folder
        self.metadata = metadata
        self.failures = failures
        self.score: float | None = None
        self.epoch = 0
        self.numbers: dict[str, float] = {}
        self.per_class: dict[str, float] = {}
        self.metric: Metric | None = None
        self._validated_step = -1
        self._last_score: float | None = None

    def score_of(self, step: int) -> float | None:
        """The score after a step; None if there was no validation after it."""
        return self._last_score if step == self._validated_step else None

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, DetectionModule), "detkit trains a DetectionModule"
        self.metric = pl_module.metric

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        numbers = validation_numbers(trainer)
        if self.monitor not in numbers:
            raise RecipeError(f"checkpoint.monitor: no number {self.monitor!r}; there are {', '.join(sorted(numbers))}")
        self._validated_step, self._last_score = trainer.global_step, numbers[self.monitor]
        if self.score is None or self._last_score >= self.score:  # of equal scores, the later epoch
            self.score, self.epoch, self.numbers = self._last_score, trainer.current_epoch + 1, numbers
            assert self.metric is not None, "setup comes before the first validation"
            self.per_class = self.metric.per_class()
            self._write(trainer)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the detector before the checkpoint of the epoch, so that every run with a checkpoint has a detector."""
        if self.score is None:
            self.epoch = trainer.current_epoch + 1
            self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        module = averaged_module(trainer)
        assert isinstance(module.model, nn.Module), "DetectionModule has a model"
        best = {"monitor": self.monitor, "score": self.score, "epoch": self.epoch, "step": trainer.global_step}
        if self.metric is not None and "AP" in self.metric.meanings:
            best["ap"] = self.numbers.get("val/AP")
        with self.failures.recording(self.folder.detector):
            write_detector(self.folder.detector, module.model.state_dict(), {**self.metadata, **best})

    @override
    def state_dict(self) -> CheckpointState:
        return {"score": self.score, "epoch": self.epoch, "numbers": self.numbers, "per_class": self.per_class}

    @override
    def load_state_dict(self, state_dict: CheckpointState) -> None:
        self.score, self.epoch = state_dict["score"], state_dict["epoch"]
        self.numbers, self.per_class = state_dict["numbers"], state_dict["per_class"]
