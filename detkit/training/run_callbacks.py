"""The callbacks of a run, and their order."""

import functools
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import lightning as L
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import Logger
from rich.console import Console

from detkit.training.callbacks.best import BestDetector
from detkit.training.callbacks.finite import NonFinite
from detkit.training.callbacks.meter import TrainMeter
from detkit.training.callbacks.metrics_files import MetricsLog, MetricsTable
from detkit.training.callbacks.pictures import Pictures, sheet_of
from detkit.training.callbacks.progress import ProgressReport
from detkit.training.callbacks.reseed import ReseedEachBatch
from detkit.training.callbacks.saver import CheckpointSaver
from detkit.training.callbacks.unreadable_limit import UnreadableReport
from detkit.training.distributed.ranks_watch import RanksWatch
from detkit.training.optim.fine_tuning import FineTuning
from detkit.training.parts import Parts
from detkit.training.run.failed_writes import FailedWrites
from detkit.training.run.folder import RunFolder
from detkit.training.run.interrupt import Interrupt
from detkit.training.run.loggers import BufferedWandbLogger, FlushWandb
from detkit.training.settings import RunMetadata

Item = TypeVar("Item")


class RunContext(NamedTuple):
    """The objects that the callbacks of one run share."""

    parts: Parts
    metadata: RunMetadata
    folder: RunFolder
    rank: int  # of this process; rank 0 alone writes files and prints
    console: Console
    fine_tuning: FineTuning
    interrupt: Interrupt
    failures: FailedWrites
    wandb: BufferedWandbLogger | None  # of rank 0
    resume_command: str

    def loggers(self) -> list[Logger]:
        """The loggers of the recipe's trainer, and W&B."""
        return [*as_list(self.parts.trainer.keywords.get("logger")), *([self.wandb] if self.wandb else [])]


class RunCallbacks(NamedTuple):
    """All callbacks of a run, and the two that ``train`` needs."""

    in_order: list[L.Callback]
    ranks: RanksWatch
    best: BestDetector


def run_callbacks(run: RunContext) -> RunCallbacks:
    """All callbacks of a run, in the order in which Lightning calls them.

    | callback | what it does | why at this place |
    |---|---|---|
    | RanksWatch | informs all ranks when one ends | other ranks must know of an error before any callback handles it |
    | the recipe's, with EMA | average of the weights | before callbacks that evaluate, check or save weights |
    | FineTuning | freezes and unfreezes | before MetricsLog reads the learning rate: unfreezing makes a new optimizer |
    | ReseedEachBatch | seeds the step | after the callbacks that may draw random numbers when a batch starts |
    | NonFinite | stops or skips a step | raises before numbers of that step are written or saved |
    | TrainMeter | means of the loss terms, speed | before the callbacks that read it |
    | MetricsLog | metrics.jsonl | after the meter, before callbacks that write events |
    | BestDetector | detector.safetensors | before the callbacks that print or draw the best epoch |
    | UnreadableReport | limit on unreadable images | after the log, to which it writes events |
    | LearningRateMonitor | learning rates to loggers | only with a logger |
    | MetricsTable, on rank 0 | metrics.csv | the row of an epoch is on disk before its checkpoint |
    | ProgressReport, on rank 0 | progress bar, line of an epoch | after the best epoch is known |
    | Pictures, on rank 0 | sheets of images | after the best epoch is known |
    | FlushWandb, with W&B | uploads the numbers | after callbacks that write files: the files get all numbers first |
    | CheckpointSaver | training checkpoints | Lightning puts it last: a checkpoint has the state after all others |
    """
    parts, folder, failures, names = run.parts, run.folder, run.failures, run.parts.data.class_names
    settings, trainer = parts.settings, parts.trainer.keywords
    ranks = RanksWatch(folder.path, run.resume_command)
    meter = TrainMeter()
    log = MetricsLog(folder.metrics_log if run.rank == 0 else None, meter, failures)
    best = BestDetector(parts.checkpoint.monitor, folder, run.metadata, failures)
    saver = CheckpointSaver(parts.checkpoint, folder, best, run.interrupt, failures)
    sheet = functools.partial(sheet_of, class_names=names)
    policy, limit = settings.non_finite, settings.max_non_finite
    in_order = [
        ranks,
        *as_list(trainer.get("callbacks")),
        run.fine_tuning,
        ReseedEachBatch(settings.seed),
        NonFinite(policy, limit, folder.non_finite, log, failures, saver.requests, sheet),
        meter,
        log,
        best,
        UnreadableReport(parts.data, ranks, log.event),
    ]
    if run.loggers():
        in_order.append(LearningRateMonitor("step"))
    if run.rank == 0:
        in_order.append(MetricsTable(folder.metrics, meter, failures))
        in_order.append(ProgressReport(run.console, meter, best, trainer.get("enable_progress_bar", True)))
        in_order.append(Pictures(folder.pictures, names, best, failures))
    if run.wandb:
        in_order.append(FlushWandb(run.wandb))
    return RunCallbacks([*in_order, saver], ranks, best)


def as_list(value: Item | Sequence[Item] | bool | None) -> list[Item]:
    """An argument of Lightning's trainer, one object or several, as a list. A boolean gives an empty list."""
    if value is None or isinstance(value, bool):
        return []
    if isinstance(value, Sequence):
        return list(value)
    return [value]
