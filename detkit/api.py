"""The Python interface: train, evaluate and export, which do the same as the commands with these names."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, Unpack

import lightning as L
from rich.console import Console
from torch import nn

from detkit import recipe, training
from detkit.errors import RecipeError
from detkit.exporting.options import ExportOptions, Precision, SplitName, check_options
from detkit.exporting.run import prepare
from detkit.exporting.verify.certificate import Certificate
from detkit.inference import read_stored
from detkit.inference.runtimes.forms import Dynamic, Format, Outputs
from detkit.inference.stored_detector import on_split
from detkit.recipe.options import read_options
from detkit.weights import load_weights

# {"data.root": "my_data", "trainer.max_epochs": 40}, or pairs of the same; "key+" appends to a list.
Overrides = Mapping[str, object] | Sequence[tuple[str, object]]


class ExportKeys(TypedDict, total=False):
    """Options of ``detkit export``, with the meanings and defaults in ``detkit export --help``."""

    format: Format
    out: str | Path | None
    outputs: Outputs | None
    input: str
    dynamic: Dynamic
    image_hw: tuple[int, int] | None
    precision: Precision
    score_threshold: float | None
    iou_threshold: float | None
    max_detections: int | None
    tolerance: float | None
    limit: int | None
    calibration: int
    batch_size: int
    split: SplitName
    allow_difference: bool
    trusted: Sequence[str]


def train(
    recipe_name: str | Path, overrides: Overrides | None = None, *, trusted: Sequence[str] = ()
) -> training.TrainingResult:
    """Train a detector or a classifier, as ``detkit train`` does.

    Args:
        recipe_name: a name from the list that ``detkit train`` prints, or a path to a .yaml file.
        overrides: values of the recipe by their dotted keys.
        trusted: packages whose classes the recipe may use, besides detkit's and those in the working directory.

    Returns:
        The folder of the run and the numbers of its best epoch; ``detkit.load(run.folder)`` opens the detector.

    Raises:
        DetkitError: if the recipe or the data is not valid, or if training cannot continue.
        SystemExit: with 128 + the signal, if Ctrl-C or SIGTERM stopped the run after its step was saved.
    """
    plan = recipe.load_recipe(str(recipe_name), _pairs(overrides), trusted)
    recipe.check(plan)
    return train_plan(plan)


def evaluate(
    checkpoint: str | Path,
    overrides: Overrides | None = None,
    *,
    split: SplitName = "val",
    trusted: Sequence[str] = (),
    detections: str | Path | None = None,
) -> training.Evaluation:
    """Measure a trained detector or classifier on a split, as ``detkit evaluate`` does.

    Args:
        checkpoint: a run's folder, a detector file or an exported detector.
        overrides: values of the stored recipe by their dotted keys, e.g. ``{"data.root": "my_data"}``.
        split: split of the data.
        trusted: packages whose classes the checkpoint may use.
        detections: file for the detections as COCO JSON, which ``Evaluation.show`` writes.

    Returns:
        The numbers, over all classes and by class.

    Raises:
        DetkitError: if the checkpoint cannot be read, or the data cannot be used.
    """
    stored = read_stored(checkpoint)
    plan = stored.plan(_pairs(overrides), trusted)
    model = stored.build_model(trusted, plan.config["model"])
    parts = run_parts(on_split(plan, split), model=model)
    return training.evaluate(parts, stored.class_names, Path(detections) if detections else None)


def export(checkpoint: str | Path, overrides: Overrides | None = None, **options: Unpack[ExportKeys]) -> Certificate:
    """Export a detector and check that the file gives the same detections, as ``detkit export`` does.

    Args:
        checkpoint: a run's folder or a detector file.
        overrides: keys of the data for the check, e.g. ``{"data.root": "my_data"}``.
        options: those of ``detkit export``.

    Returns:
        The certificate, which is also stored in the exported file and next to it.

    Raises:
        DetkitError: if the detector cannot be exported in this form, or the file differs by more than the tolerance.
    """
    arguments = [f"{key}={_as_typed(value)}" for key, value in {"checkpoint": checkpoint, **options}.items()]
    read, _ = read_options(ExportOptions, arguments)
    pairs = _pairs(overrides)
    check_options(read, pairs)
    return prepare(read, pairs).run(recipe.console())


def train_plan(plan: recipe.Plan, console: Console | None = None) -> training.TrainingResult:
    """Build the parts of a checked plan and train them."""
    return training.train(run_parts(plan), load_weights, console)


KINDS: Mapping[str, type] = {
    "data": L.LightningDataModule,
    "model": nn.Module,
    "checkpoint": training.CheckpointSettings,
    "trainer": functools.partial,
}


def run_parts(plan: recipe.Plan, **ready: nn.Module) -> training.Parts:
    """Build the parts of a recipe, for ``training.train`` and ``training.evaluate``.

    Args:
        plan: of the recipe, checked.
        ready: parts that are built already, see ``recipe.build``.

    Raises:
        RecipeError: if a constructor refuses a value, or a part has not the type that training needs.
        DataError: if the data is not valid.
    """
    built = recipe.build(plan, **ready)
    parts = built._asdict()
    del parts["plan"]
    for name, kind in KINDS.items():
        if not isinstance(parts[name], kind):
            remedy = "; write _partial_: true" if kind is functools.partial else ""
            raise RecipeError(f"{name} must be a {kind.__name__}; got a {type(parts[name]).__name__}{remedy}")
    return training.Parts(settings=run_settings(built.plan), **parts)


def run_settings(plan: recipe.Plan) -> training.RunSettings:
    """The settings of a run from its recipe."""
    settings = plan.settings
    names = settings.freeze, settings.unfreeze_epoch, settings.backbone_lr_factor, settings.layer_decay
    return training.RunSettings(
        name=settings.name or plan.name,
        runs_dir=Path(settings.runs_dir).expanduser(),
        seed=settings.seed,
        wandb=settings.wandb,
        resume=settings.resume,
        allow_changes=settings.resume_allow_changes,
        weights=settings.weights,
        weights_except=settings.weights_except,
        fine_tuning=training.FineTuningSettings(*names),
        non_finite=settings.non_finite,
        max_non_finite=settings.max_non_finite,
        image_hw=recipe.image_hw_of(plan),
        data_root=plan.config["data"].get("root"),
        trusted=plan.named_packages,
        trusted_by_detector=plan.packages_of_detector,
        recipe_name=plan.name,
        recipe_file=plan.path,
        recipe=plan.to_store(),
        recipe_yaml=plan.to_yaml(),
        changes_since=plan.changes_since,
    )


def _pairs(overrides: Overrides | None) -> list[tuple[str, object]]:
    pairs = overrides.items() if isinstance(overrides, Mapping) else overrides or ()
    return [(key, _plain(value)) for key, value in pairs]


def _plain(value: object) -> object:
    """A value as plain data, like the values of YAML."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _as_typed(value: object) -> str:
    """A value in the form of the command line."""
    if isinstance(value, list | tuple):
        return ",".join(map(_as_typed, value))
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)
