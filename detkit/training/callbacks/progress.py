"""The progress bar of a run, and a line for every epoch.

Without a terminal there are only plain lines, for a log file.
"""

import datetime as dt
import time
from collections.abc import Mapping

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch import Tensor
from typing_extensions import override

from detkit.training.callbacks.best import BestDetector
from detkit.training.callbacks.meter import TrainMeter
from detkit.training.module import VALIDATION, validation_numbers

REFRESH_S = 0.5  # not at every step, because reading a loss term waits for the device


class ProgressReport(L.Callback):
    """Shows the progress of a run, on rank 0.

    Args:
        console: console to print on.
        meter: gives loss terms and speed.
        best: gives the best epoch; Lightning must call it before this callback.
        bar: whether to draw a bar if the console is a terminal.
    """

    def __init__(self, console: Console, meter: TrainMeter, best: BestDetector, bar: bool = True) -> None:
        self.console = console
        self.meter = meter
        self.best = best
        description, text = TextColumn("{task.description}"), TextColumn("{task.fields[text]}")
        columns = description, BarColumn(20), MofNCompleteColumn(), text
        visible = bar and console.is_terminal
        self.progress = Progress(*columns, console=console, transient=True, refresh_per_second=4, disable=not visible)
        self.task = self.progress.add_task("", text="")
        self._start_s = 0.0
        self._first_step = 0
        self._drawn_s = 0.0

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start_s, self._first_step = time.perf_counter(), trainer.global_step
        self.progress.start()

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.progress.reset(self.task, total=int(trainer.num_training_batches), description=_epoch(trainer))

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if self.progress.disable:
            if trainer.is_last_batch:
                times = f"{_duration(now - self._start_s)}, left {_duration(self._left_s(trainer))}"
                self._print(f"{_epoch(trainer)}  {self._speed(self.meter.means)}  {times}")
        elif now - self._drawn_s >= REFRESH_S or trainer.is_last_batch:
            self._drawn_s = now
            total = int(trainer.num_training_batches)
            left_s = (total - batch_idx - 1) * self.meter.seconds_per_batch
            times = f"left {_duration(left_s)}, run {_duration(self._left_s(trainer))}"
            text = f"{self._speed(self.meter.terms)}  {times}"
            self.progress.update(
                self.task, completed=batch_idx + 1, total=total, description=_epoch(trainer), text=text
            )
            self.progress.refresh()

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            total = int(sum(trainer.num_val_batches))
            self.progress.reset(self.task, total=total, description=f"{_epoch(trainer)} validation", text="")
            self.progress.refresh()

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
        if not trainer.sanity_checking:
            self.progress.update(self.task, completed=batch_idx + 1)

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        numbers = {name.removeprefix(VALIDATION): value for name, value in validation_numbers(trainer).items()}
        best = f"best {score_text(self.best.score)} (epoch {self.best.epoch})"
        self._print("  ".join([_epoch(trainer), *self._scores(numbers), best]))

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.progress.stop()

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.progress.stop()

    def _scores(self, numbers: Mapping[str, float]) -> list[str]:
        """The numbers that the metric lists in ``shown``: one number with three digits, several with two."""
        shown = self.best.metric.shown if self.best.metric else {}
        return [
            f"{heading} {'/'.join(score_text(numbers[name], 3 if len(names) == 1 else 2) for name in names)}"
            for heading, names in shown.items()
            if numbers.keys() >= set(names)
        ]

    def _speed(self, terms: Mapping[str, Tensor | float]) -> str:
        shown = "  ".join(f"{name} {value:.3f}" for name, value in terms_by_kind(terms).items())
        return f"{shown}  {self.meter.images_per_s:.0f} images/s"

    def _print(self, line: str) -> None:
        self.progress.console.print(line, soft_wrap=True, highlight=False)

    def _left_s(self, trainer: L.Trainer) -> float:
        """Estimate from the mean time of a step so far, including validation and saving."""
        done = trainer.global_step - self._first_step
        left = trainer.estimated_stepping_batches - trainer.global_step
        return (time.perf_counter() - self._start_s) / max(done, 1) * left


def terms_by_kind(terms: Mapping[str, Tensor | float]) -> dict[str, float]:
    """The sum of terms of each kind: cls, cls_aux_0 and cls_dn_0 are all cls."""
    kinds: dict[str, float] = {}
    for name, value in terms.items():
        kind = name.partition("_")[0]
        kinds[kind] = kinds.get(kind, 0.0) + float(value)
    return kinds


def _epoch(trainer: L.Trainer) -> str:
    total = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
    return f"epoch {trainer.current_epoch + 1}" + (f"/{total}" if total else "")


def score_text(value: float | None, digits: int = 3) -> str:
    """A number of a validation; "-" where there is none, or no ground truth to measure it on."""
    return "-" if value is None or value < 0 else f"{value:.{digits}f}"


def _duration(seconds: float) -> str:
    return str(dt.timedelta(seconds=round(max(seconds, 0))))
