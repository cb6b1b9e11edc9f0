"""Train a detector from the parts of a recipe."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import lightning as L
import torch
from rich.console import Console
from torch import nn

from detkit.checkpoint import CheckpointManifest
from detkit.errors import CheckpointError, StorageError
from detkit.training.callbacks.saver import DetkitCheckpointIO
from detkit.training.distributed.agreement import TrainingStopped, process_rank
from detkit.training.distributed.sync_batch_norm import SyncBatchNormOnAnyDevice
from detkit.training.image_size import require_fitting_images
from detkit.training.module import DetectionModule
from detkit.training.optim.fine_tuning import FineTuning
from detkit.training.parts import Parts
from detkit.training.run.autocast import supported_precision
from detkit.training.run.failed_writes import FailedWrites
from detkit.training.run.folder import (
    RunFolder,
    create_folder,
    find_checkpoint,
    locked,
    shared_with_child_ranks,
    started_by_rank_0,
)
from detkit.training.run.interrupt import Interrupt
from detkit.training.run.log_filters import filtered_logs
from detkit.training.run.loggers import finish_wandb, wandb_logger
from detkit.training.run.resume_check import check_resume, machine_differences, resume_command, run_facts
from detkit.training.run_callbacks import RunCallbacks, RunContext, as_list, run_callbacks
from detkit.training.settings import RunMetadata
from detkit.training.summary import print_lines, print_summary

LOG_EVERY_N_STEPS = 10
# (source, model, class names, patterns of names that are not loaded) to a report, which str() makes readable
WeightLoader = Callable[[str, nn.Module, Sequence[str], str | Sequence[str]], object]


class TrainingResult(NamedTuple):
    """The folder of a run and the numbers of its best epoch."""

    folder: Path
    numbers: dict[str, float]  # of the best epoch; empty if no validation was done
    per_class: dict[str, float]  # AP of the best epoch by class name
    epoch: int  # the best epoch, counted from 1


def train(parts: Parts, load_weights: WeightLoader | None = None, console: Console | None = None) -> TrainingResult:
    """Train, validate after every epoch, and write the best detector to the run's folder.

    Args:
        parts: parts of the run.
        load_weights: loads the weights that the settings name into the model, e.g. ``detkit.weights.load_weights``.
        console: where rank 0 prints; None: standard output.

    Raises:
        RecipeError: if the settings of fine-tuning do not fit the model, or the resumed run had another recipe.
        DataError: if the resumed run had other data.
        TrainingError: if a loss is not finite.
        CheckpointError: if there is no checkpoint to resume from, it cannot be read, or another run uses the folder.
        StorageError: if a file cannot be written and ``checkpoint.on_failure`` is stop.
        SystemExit: with 128 + the signal if a signal stopped the run: 130 for Ctrl-C, 143 for SIGTERM.
    """
    settings, rank, metadata = parts.settings, process_rank(), parts.metadata()
    console = Console(quiet=True) if rank else console or Console()
    require_fitting_images(parts.data, parts.model)
    fine_tuning = FineTuning(parts.model, *settings.fine_tuning, print_line=functools.partial(print_lines, console))
    if settings.weights and not settings.resume:
        if load_weights is None:
            raise CheckpointError(f"weights={settings.weights}: train was called without load_weights; pass a function")
        report = load_weights(settings.weights, parts.model, parts.data.class_names, settings.weights_except)
        print_lines(console, f"weights: {report}")
    resumed, folder = _run_folder(parts, metadata, rank, console)
    with contextlib.ExitStack() as stack:
        if rank == 0:
            stack.enter_context(locked(folder))
            stack.enter_context(shared_with_child_ranks(folder))
            folder.write_recipe(settings.recipe_yaml)
        wandb = wandb_logger(settings, folder) if rank == 0 else None
        context = RunContext(
            *(parts, metadata, folder, rank, console, fine_tuning, Interrupt()),
            *(FailedWrites(parts.checkpoint.on_failure), wandb, resume_command(folder.path, settings.trusted)),
        )
        return _fit(context, resumed)


def _fit(run: RunContext, resumed: CheckpointManifest | None) -> TrainingResult:
    parts, console, failed = run.parts, run.console, True
    try:
        with run.interrupt.listening(), filtered_logs():
            callbacks = run_callbacks(run)
            trainer = _trainer(run, callbacks)
            run.interrupt.disable_lightning_handlers(trainer)
            if resumed:
                print_lines(console, *machine_differences(resumed.facts, run_facts(run.metadata, trainer.world_size)))
            metric = parts.metrics(ground_truth=parts.data.ground_truth())
            optimization = parts.optimizer, parts.scheduler, run.fine_tuning.groups
            module = DetectionModule(parts.model, parts.loss, parts.decode, metric, *optimization)
            with callbacks.ranks.announced_exit():
                trainer.fit(module, datamodule=parts.datamodule, ckpt_path=resumed.path if resumed else None)
        best = callbacks.best
        print_summary(console, best, run.folder, parts.settings)
        failed = False
        return TrainingResult(callbacks.ranks.folder, best.numbers, best.per_class, best.epoch)
    except TrainingStopped as stop:
        _exit_with_code_0_if_started_by_rank_0(run.rank)
        saved = "stopped and saved" if stop.at_step_end else "stopped at once; the last checkpoint is unchanged"
        print_lines(console, saved, f"resume: {run.resume_command}")
        raise SystemExit(stop.exit_code) from None
    except StorageError:
        _exit_with_code_0_if_started_by_rank_0(run.rank)
        raise
    finally:
        if run.wandb:
            finish_wandb(run.wandb, run.folder, failed)


def _run_folder(
    parts: Parts, metadata: RunMetadata, rank: int, console: Console
) -> tuple[CheckpointManifest | None, RunFolder]:
    """The checkpoint to resume from, None for a new run; and the folder of the run."""
    settings = parts.settings
    runs = settings.runs_dir / settings.name
    resumed = find_checkpoint(runs, settings.resume) if settings.resume else None
    if resumed:
        print_lines(console, *check_resume(resumed, settings, metadata))
    folder = RunFolder(resumed.path.parent.parent) if resumed else create_folder(runs, rank)
    print_lines(console, f"resumed: {folder.path} from step {resumed.step}" if resumed else f"run: {folder.path}")
    return resumed, folder


def _trainer(run: RunContext, callbacks: RunCallbacks) -> L.Trainer:
    """The recipe's trainer with the callbacks, loggers and plugins of every run."""
    given = run.parts.trainer.keywords
    plugins = [*as_list(given.get("plugins")), DetkitCheckpointIO(run.failures)]
    if given.get("sync_batchnorm"):
        plugins.append(SyncBatchNormOnAnyDevice(given.get("accelerator") != "cpu" and torch.cuda.is_available()))
    return run.parts.trainer(
        callbacks=callbacks.in_order,
        logger=run.loggers(),
        plugins=plugins,
        precision=supported_precision(given),
        use_distributed_sampler=False,  # detkit's sampler yields the images of its rank
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=given.get("log_every_n_steps", LOG_EVERY_N_STEPS),
        default_root_dir=run.folder.path,
    )


def _exit_with_code_0_if_started_by_rank_0(rank: int) -> None:
    """Lightning kills rank 0 when a rank that it started ends with another code; rank 0 reports the real one."""
    if started_by_rank_0(rank):
        raise SystemExit(0) from None
