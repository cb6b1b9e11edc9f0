"""From a plan to the typed parts of a run: where recipes and training meet."""

import functools
from collections.abc import Mapping
from pathlib import Path

import lightning as L
from torch import nn

from detkit import recipe, training
from detkit.errors import RecipeError

KINDS: Mapping[str, type] = {
    "data": L.LightningDataModule,
    "model": nn.Module,
    "checkpoint": training.CheckpointSettings,
    "trainer": functools.partial,
}


def run_parts(plan: recipe.Plan) -> training.Parts:
    """Build the parts of a recipe, for ``training.train`` and ``training.evaluate``.

    Raises:
        RecipeError: if a constructor refuses a value, or a part is not of the kind that training needs.
        DataError: if the data cannot be used.
    """
    built = recipe.build(plan)
    parts = built._asdict()
    del parts["plan"]
    for name, kind in KINDS.items():
        if not isinstance(parts[name], kind):
            remedy = "; write _partial_: true" if kind is functools.partial else ""
            raise RecipeError(f"{name} must be a {kind.__name__}; got a {type(parts[name]).__name__}{remedy}")
    return training.Parts(settings=run_settings(built.plan), **parts)


def run_settings(plan: recipe.Plan) -> training.RunSettings:
    """What a run takes from its recipe beside the parts."""
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
