"""From the parts of a recipe to a trained detector in a run's folder."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from torch import nn

from detkit import __version__
from detkit.checkpoint import CheckpointManifest
from detkit.errors import CheckpointError, StorageError
from detkit.training.callbacks.best import BestDetector
from detkit.training.callbacks.finite import NonFinite
from detkit.training.callbacks.meter import TrainMeter
from detkit.training.callbacks.metrics_files import MetricsLog, MetricsTable
from detkit.training.callbacks.pictures import Pictures, sheet_of
from detkit.training.callbacks.progress import ProgressReport
from detkit.training.callbacks.reseed import ReseedEachBatch
from detkit.training.callbacks.saver import DetkitCheckpointIO, Saver
from detkit.training.callbacks.unreadable_limit import UnreadableReport
from detkit.training.distributed.ranks_watch import RanksWatch
from detkit.training.distributed.sync_batch_norm import SyncBatchNormOnAnyDevice
from detkit.training.image_size import require_fitting_images
from detkit.training.module import DetectionModule
from detkit.training.optim.fine_tuning import KEYS, FineTuning
from detkit.training.run.autocast import precision_here
from detkit.training.run.failed_writes import FailedWrites
from detkit.training.run.folder import (
    RunFolder,
    create_folder,
    find_checkpoint,
    locked,
    shared_with_child_ranks,
    started_by_rank_0,
)
from detkit.training.run.interrupt import Interrupt, TrainingStopped
from detkit.training.run.log_filters import filtered_logs
from detkit.training.run.loggers import BufferedWandbLogger, FlushWandb, finish_wandb, wandb_logger
from detkit.training.run.resume_check import check_resume, machine_differences, resume_command, run_facts
from detkit.training.summary import print_summary

LOG_EVERY_N_STEPS = 10
WeightLoader = Callable[[str, nn.Module, Sequence[str], str | Sequence[str]], object]  # whose text says what was taken


class Trained(NamedTuple):
    """What a run left."""

    folder: Path
    numbers: dict[str, float]  # of the best epoch; empty if nothing was validated
    per_class: dict[str, float]  # its AP by class name
    epoch: int  # the best, counted from 1


def train(parts: Any, load_weights: WeightLoader | None = None, console: Console | None = None) -> Trained:
    """Train, evaluate after every epoch, and leave the best detector in the run's folder.

    Args:
        parts: of a recipe, as ``recipe.build`` gives them.
        load_weights: gives the model what the recipe names under ``weights``: ``detkit.weights.load_weights``.
        console: where rank 0 speaks; None: standard output.

    Raises:
        RecipeError: if what is to be frozen, or to learn at its own rate, does not fit the model; or if the
            run that is resumed had another recipe.
        DataError: if it had other data.
        TrainingError: if a loss is not finite.
        CheckpointError: if there is nothing to resume, a file cannot be read, or another run has the folder.
        StorageError: if a file cannot be written and ``checkpoint.on_failure`` is stop.
        SystemExit: with 128 + the signal, when one stopped the run: 130 for Ctrl-C, 143 for SIGTERM.
    """
    config, rank, metadata = parts.plan.config, getattr(rank_zero_only, "rank", 0), metadata_of(parts)
    console = Console(quiet=True) if rank else console or Console()
    require_fitting_images(parts.data, parts.model)
    fine_tuning = FineTuning(parts.model, **{key: config[key] for key in KEYS}, say=functools.partial(_say, console))
    if config["weights"] and not config["resume"]:
        _say(console, _start_from(parts, load_weights))
    resumed, folder = _run_folder(parts, metadata, rank, console)
    with contextlib.ExitStack() as stack:
        if rank == 0:
            stack.enter_context(locked(folder))
            stack.enter_context(shared_with_child_ranks(folder))
            folder.write_recipe(parts.plan.to_yaml())
        return _fit(parts, metadata, resumed, folder, fine_tuning, console)


def _fit(
    parts: Any,
    metadata: dict[str, Any],
    resumed: CheckpointManifest | None,
    folder: RunFolder,
    fine_tuning: FineTuning,
    console: Console,
) -> Trained:
    config, rank = parts.plan.config, getattr(rank_zero_only, "rank", 0)
    interrupt = Interrupt()
    failures = FailedWrites(parts.checkpoint.on_failure)
    best = BestDetector(parts.checkpoint.monitor, folder, metadata, failures)
    saver = Saver(parts.checkpoint, folder, best, interrupt, failures)
    go_on = resume_command(folder.path, parts.plan.named_packages)
    ranks = RanksWatch(folder.path, go_on)
    wandb = wandb_logger(config["wandb"], parts.plan.name, folder, config) if rank == 0 else None
    failed = True
    try:
        with interrupt.listening(), filtered_logs():
            trainer = _trainer(parts, folder, console, fine_tuning, best, saver, wandb, ranks)
            interrupt.own_signals(trainer)
            if resumed:
                _say(console, *machine_differences(resumed.facts, run_facts(metadata, trainer.world_size)))
            metric = parts.metrics(ground_truth=parts.data.ground_truth())
            module = DetectionModule(
                parts.model, parts.loss, parts.decode, metric, parts.optimizer, parts.scheduler, fine_tuning.groups
            )
            with ranks.announced_exit():
                trainer.fit(module, datamodule=parts.data, ckpt_path=resumed.path if resumed else None)
        print_summary(console, best, folder, config["data"].get("root"), parts.plan.packages_of_detector)
        failed = False
        return Trained(ranks.folder, best.numbers, best.per_class, best.epoch)
    except TrainingStopped as stop:
        _leave_it_to_rank_0(rank)
        _say(console, *_how_to_go_on(stop, go_on))
        raise SystemExit(stop.exit_code) from None
    except StorageError:
        _leave_it_to_rank_0(rank)
        raise
    finally:
        if wandb:
            finish_wandb(wandb, folder, failed)


def _run_folder(
    parts: Any, metadata: dict[str, Any], rank: int, console: Console
) -> tuple[CheckpointManifest | None, RunFolder]:
    """The checkpoint to go on from, if that is asked for and the run is the same; and the folder."""
    config = parts.plan.config
    runs = Path(config["runs_dir"]).expanduser() / (config["name"] or parts.plan.name)
    resumed = find_checkpoint(runs, config["resume"]) if config["resume"] else None
    if resumed:
        _say(console, *check_resume(resumed, parts.plan, metadata))
    folder = RunFolder(resumed.path.parent.parent) if resumed else create_folder(runs, rank)
    _say(console, f"resumed: {folder.path} from step {resumed.step}" if resumed else f"run: {folder.path}")
    return resumed, folder


def metadata_of(parts: Any) -> dict[str, Any]:
    """What a detector file holds beside its weights: enough to rebuild the detector and name its classes."""
    config = parts.plan.config
    return {
        "recipe": parts.plan.to_store(),
        "class_names": list(parts.data.class_names),
        "category_ids": parts.data.ground_truth().category_ids.tolist(),
        "image_hw": list(config["data"]["image_hw"]),
        "data_fingerprint": parts.data.fingerprint,
        "detkit_version": __version__,
    }


def _start_from(parts: Any, load_weights: WeightLoader | None) -> str:
    if load_weights is None:
        raise CheckpointError("weights: this program cannot load any; train with scripts/train.py")
    source, leave_out = (parts.plan.config[key] for key in ("weights", "weights_except"))
    return f"weights: {load_weights(source, parts.model, parts.data.class_names, leave_out)}"


def _trainer(
    parts: Any,
    folder: RunFolder,
    console: Console,
    fine_tuning: FineTuning,
    best: BestDetector,
    saver: Saver,
    wandb: BufferedWandbLogger | None,
    ranks: RanksWatch,
) -> L.Trainer:
    """The recipe's trainer with the callbacks, loggers and plugins that every run has.

    The order of callbacks matters. EMA, from the recipe, comes before all that look at weights; the
    meter before those that read it; the best before those that speak of it; Lightning puts the saver last.
    """
    given, config = parts.trainer.keywords, parts.plan.config
    meter = TrainMeter()
    log = MetricsLog(None if console.quiet else folder.metrics_log, meter, saver.failures)
    sheet = functools.partial(sheet_of, class_names=parts.data.class_names)
    policy, limit = config["non_finite"], config["max_non_finite"]
    finite = NonFinite(policy, limit, folder.non_finite, log, saver.failures, saver.requests, sheet)
    reseed = ReseedEachBatch(config["seed"])
    callbacks = [ranks, *(given.get("callbacks") or []), fine_tuning, reseed, finite, meter, log, best]
    callbacks.append(UnreadableReport(ranks, log.event))
    loggers = _as_list(given.get("logger"))
    if wandb:
        loggers.append(wandb)
    if loggers:
        callbacks.append(LearningRateMonitor("step"))
    if not console.quiet:
        bar = given.get("enable_progress_bar", True)
        callbacks.append(MetricsTable(folder.metrics, meter, saver.failures))
        callbacks.append(ProgressReport(console, meter, best, bar))
        callbacks.append(Pictures(folder.pictures, parts.data.class_names, best, saver.failures))
    if wandb:
        callbacks.append(FlushWandb(wandb))
    plugins = [*_as_list(given.get("plugins")), DetkitCheckpointIO(saver.failures)]
    if given.get("sync_batchnorm"):
        plugins.append(SyncBatchNormOnAnyDevice(given.get("accelerator") != "cpu" and torch.cuda.is_available()))
    return parts.trainer(
        callbacks=[*callbacks, saver],
        logger=loggers,
        plugins=plugins,
        precision=precision_here(given),
        use_distributed_sampler=False,  # detkit's own sampler takes the share of its rank
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=given.get("log_every_n_steps", LOG_EVERY_N_STEPS),
        default_root_dir=folder.path,
    )


def _leave_it_to_rank_0(rank: int) -> None:
    """All ranks end alike, and Lightning kills rank 0 as soon as one that it started ends with another code than 0."""
    if started_by_rank_0(rank):
        raise SystemExit(0) from None


def _how_to_go_on(stop: TrainingStopped, command: str) -> list[str]:
    saved = "stopped and saved" if stop.at_border else "stopped at once; the last checkpoint is as it was"
    return [saved, f"go on: {command}"]


def _as_list(value: Any) -> list[Any]:
    """Lightning takes one or many; True stands for a logger of its own choice, which is not wanted."""
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
