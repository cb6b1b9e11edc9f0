"""The numbers of a run on disk: metrics.csv and metrics.jsonl."""

import csv
import datetime as dt
import errno
import io
import json
import math
import os
import time
from collections.abc import Mapping
from io import FileIO
from pathlib import Path

import lightning as L
import torch
from typing_extensions import override

from detkit.checkpoint import CheckpointState
from detkit.checkpoint.file import replace
from detkit.training.callbacks.meter import TrainMeter
from detkit.training.module import validation_numbers
from detkit.training.run.failed_writes import FailedWrites
from detkit.training.run.host_copy import AsyncHostCopy
from detkit.training.run.logged_steps import log_interval

Row = dict[str, object]  # text, numbers, and lists and maps of them


class MetricsTable(L.Callback):
    """Writes metrics.csv: one row per epoch, on disk before the checkpoint of the epoch; on rank 0.

    The file has only numbers that a resumed run reproduces bit for bit; time and speed are in metrics.jsonl. A resumed
    run removes the rows of steps that it repeats. (Lightning's CSVLogger would remove all rows.)

    Args:
        path: path of the file.
        meter: gives the means of the epoch.
        failures: records failures to write.
    """

    def __init__(self, path: Path, meter: TrainMeter, failures: FailedWrites) -> None:
        self.path = path
        self.meter = meter
        self.failures = failures
        self._columns: list[str] = []
        self._validation: dict[str, float] = {}

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        with self.failures.recording(self.path):
            if self.path.exists():
                self._rewrite([row for row in self._read() if int(row["step"]) <= trainer.global_step])

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation = validation_numbers(trainer)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        row: Row = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        row |= {f"train/{name}": value for name, value in self.meter.means.items()}
        row |= {"lr": trainer.optimizers[0].param_groups[0]["lr"], **self._validation}
        self._validation = {}
        text = {name: f"{value:.6f}" if isinstance(value, float) else str(value) for name, value in row.items()}
        with self.failures.recording(self.path):
            rows = self._read()
            self._columns += [name for name in text if name not in self._columns]
            self._rewrite([*rows, text])

    def _read(self) -> list[dict[str, str]]:
        """All complete rows."""
        if not self.path.exists():
            return []
        reader = csv.DictReader(io.StringIO("".join(whole_lines(self.path))))
        self._columns = list(reader.fieldnames or [])
        return list(reader)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        replace(self.path, lambda file: file.write(text.getvalue().encode()))


class MetricsLog(L.Callback):
    """Writes metrics.jsonl: one JSON object per line for logged steps, epochs and events, with time and speed.

    ``kind`` is step, epoch or event. Numbers that are not finite are null. A resumed run removes the steps and epochs
    that it repeats, but no events.

    Args:
        path: path of the file; None: nothing is written, for other ranks than 0.
        meter: gives terms, means and speed.
        failures: records failures to write.
    """

    def __init__(self, path: Path | None, meter: TrainMeter, failures: FailedWrites) -> None:
        self.path = path
        self.meter = meter
        self.failures = failures
        self._step = 0
        self._lr = 0.0
        self._began_s = 0.0
        self._row: tuple[Row, list[str], AsyncHostCopy] | None = None  # a row whose loss terms are being copied

    def event(self, name: str, step: int, details: Mapping[str, object] | None = None) -> None:
        """Write an event, e.g. ``resumed``; it is on disk when this returns."""
        self._write({"kind": "event", "event": name, "step": step, **(details or {})}, sync=True)

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step, self._began_s = trainer.global_step, time.perf_counter()
        if self.path is not None and self.path.exists():
            with self.failures.recording(self.path):
                rows = ((line, json.loads(line)) for line in whole_lines(self.path))
                kept = [line for line, row in rows if row["kind"] == "event" or row["step"] <= trainer.global_step]
                replace(self.path, lambda file: file.write("".join(kept).encode()))
        if trainer.global_step:
            self.event("resumed", trainer.global_step, {"epoch": trainer.current_epoch + 1})

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began_s = time.perf_counter()

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self._write_row()
        every = log_interval(trainer)
        if trainer.global_step == self._step or not every or trainer.global_step % every:
            return
        self._step = trainer.global_step
        row = {"kind": "step", "step": trainer.global_step, "epoch": trainer.current_epoch + 1, "lr": self._lr}
        terms = AsyncHostCopy(torch.stack(tuple(self.meter.terms.values())).float())
        self._row = {**row, "images_per_s": round(self.meter.images_per_s, 2)}, list(self.meter.terms), terms

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write_row()
        row: Row = {"kind": "epoch", "step": trainer.global_step, "epoch": trainer.current_epoch + 1}
        row |= {"lr": trainer.optimizers[0].param_groups[0]["lr"], "images_per_s": round(self.meter.images_per_s, 2)}
        row["seconds"] = round(time.perf_counter() - self._began_s, 3)  # with validation
        row |= {f"train/{name}": value for name, value in self.meter.means.items()}
        self._write(row | validation_numbers(trainer), sync=True)

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: CheckpointState) -> None:
        self._write_row()  # a resumed run does not repeat this step

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._write_row()

    def _write_row(self) -> None:
        if self._row is not None:
            (row, names, terms), self._row = self._row, None
            values = dict(zip((f"train/{name}" for name in names), terms.read().tolist(), strict=True))
            self._write({**row, **values, "train/loss": sum(values.values())})

    def _write(self, row: Row, sync: bool = False) -> None:
        if self.path is None:
            return
        now = dt.datetime.now().astimezone().isoformat(timespec="milliseconds")
        line = json.dumps(_plain({"time": now, **row}), allow_nan=False)
        with self.failures.recording(self.path), self.path.open("ab", buffering=0) as file:
            _append(file, f"{line}\n".encode())
            if sync:
                os.fsync(file.fileno())


def _append(file: FileIO, line: bytes) -> None:
    """Write a complete line or nothing; a full disk may accept only a part of it."""
    end = file.tell()
    if file.write(line) < len(line):
        file.truncate(end)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def whole_lines(path: Path) -> list[str]:
    """The lines of a file with their line ends, without an incomplete last line that a killed process may leave."""
    text = path.read_text()
    return text[: text.rfind("\n") + 1].splitlines(keepends=True)


def _plain(value: object) -> object:
    """Replace numbers that JSON does not have by null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
