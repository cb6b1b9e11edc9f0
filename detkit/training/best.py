"""The best detector so far, on disk from the moment it is known."""

from typing import Any

import lightning as L
from torch import nn
from typing_extensions import override

from detkit.checkpoint import write_detector
from detkit.errors import RecipeError
from detkit.training.ema import averaged_module
from detkit.training.run_folder import RunFolder


class BestDetector(L.Callback):
    """Write detector.safetensors at every new best; without any validation, at the end.

    Args:
        monitor: the number that decides, higher is better.
        folder: of the run.
        metadata: what the detector file holds beside its weights.

    Attributes:
        score: of the best so far; None before the first validation.
        epoch: the best one, counted from 1.
        numbers: all numbers of the best epoch.
        per_class: AP of each class in the best epoch.
    """

    def __init__(self, monitor: str, folder: RunFolder, metadata: dict[str, Any]) -> None:
        self.monitor = monitor
        self.folder = folder
        self.metadata = metadata
        self.score: float | None = None
        self.epoch = 0
        self.numbers: dict[str, float] = {}
        self.per_class: dict[str, float] = {}
        self._validated_step = -1
        self._last_score: float | None = None

    def score_of(self, step: int) -> float | None:
        """The score, if this step was validated."""
        return self._last_score if step == self._validated_step else None

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        numbers = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        if self.monitor not in numbers:
            raise RecipeError(f"checkpoint.monitor: no number {self.monitor!r}; there are {', '.join(sorted(numbers))}")
        self._validated_step, self._last_score = trainer.global_step, numbers[self.monitor]
        if self.score is None or self._last_score >= self.score:  # a draw: the longer trained
            self.score, self.epoch, self.numbers = self._last_score, trainer.current_epoch + 1, numbers
            self.per_class = pl_module.metric.per_class()  # type: ignore[operator, union-attr]
            self._write(trainer)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.score is None:
            self.epoch = trainer.current_epoch
            self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        module = averaged_module(trainer)
        assert isinstance(module.model, nn.Module), "DetectionModule has a model"
        best = {"ap": self.numbers.get("val/AP"), "epoch": self.epoch, "step": trainer.global_step}
        write_detector(self.folder.detector, module.model.state_dict(), {**self.metadata, **best})

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "epoch": self.epoch, "numbers": self.numbers, "per_class": self.per_class}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.score, self.epoch = state_dict["score"], state_dict["epoch"]
        self.numbers, self.per_class = state_dict["numbers"], state_dict["per_class"]
