"""Compare a resumed run with the original one: recipe, data and machine."""

import hashlib
import json
import platform
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import lightning as L
import torch

from detkit.checkpoint import CheckpointManifest, PlainData, read_checkpoint
from detkit.errors import CheckpointError, DataError, RecipeError
from detkit.training.settings import RecipeChange, RunMetadata, RunSettings

# Keys that do not change the result of a run. All others may: max_epochs changes every schedule, and val_batch_size
# changes the rounding of validation.
NEUTRAL_KEYS = (
    *("name", "runs_dir", "wandb", "resume", "resume.allow_changes"),  # place and display of a run
    *("data.num_workers", "data.cache_mb"),  # samples are functions of (seed, epoch, index)
    # places of the data; its content is compared by its fingerprint
    *("data.root", "data.train_annotations", "data.train_images", "data.val_annotations", "data.val_images"),
    "data.follow_links",
    *("data.max_unreadable", "non_finite", "max_non_finite"),  # limits that this run has not reached
    *("checkpoint.every_n_steps", "checkpoint.every_minutes", "checkpoint.keep", "checkpoint.on_failure"),
    *("trainer.log_every_n_steps", "trainer.enable_progress_bar", "trainer.enable_model_summary"),
    # the machine, compared by `machine_differences`
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"),
)
START_KEYS = ("weights", "weights_except")  # not used by a resumed run, so they may be left out
SHOWN = 10


def run_facts(metadata: RunMetadata, world_size: int) -> PlainData:
    """The facts in a checkpoint's manifest that a resumed run is compared with."""
    recipe = json.dumps(metadata["recipe"], sort_keys=True)
    return {
        "recipe_sha256": hashlib.sha256(recipe.encode()).hexdigest(),
        "data_fingerprint": metadata["data_fingerprint"],
        "versions": {
            "detkit": metadata["detkit_version"],
            "lightning": L.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        "threads": torch.get_num_threads(),
        "world_size": world_size,
    }


def check_resume(manifest: CheckpointManifest, settings: RunSettings, metadata: RunMetadata) -> list[str]:
    """Refuse to resume with another recipe or other data, unless the settings allow changes.

    Args:
        manifest: manifest of the checkpoint to resume from.
        settings: settings of this run.
        metadata: metadata of this run.

    Returns:
        Lines to print about allowed changes.

    Raises:
        RecipeError: if a key that may change the result has changed.
        DataError: if only the data has changed.
        CheckpointError: if the checkpoint cannot be read.
    """
    now = run_facts(metadata, world_size=1)
    same_recipe, same_data = (manifest.facts.get(key) == now[key] for key in ("recipe_sha256", "data_fingerprint"))
    changes = [] if same_recipe else _changes(manifest.path, settings)
    old, new = (str(facts.get("data_fingerprint"))[:12] for facts in (manifest.facts, now))
    fingerprints = f"  the data has other images, boxes or classes: fingerprint {old} then, {new} now"
    data = [] if same_data else [fingerprints]
    if not changes and not data:
        return []
    lines = [*_table(changes), *data]
    if settings.allow_changes:
        return [
            "resumed with changes; the result differs from that of the old run and from that of this recipe:",
            *lines,
        ]
    error = RecipeError if changes else DataError
    remedy = _remedy(manifest, settings) if changes else "restore the old data"
    accept = "or accept the changes: resume.allow_changes=true"
    raise error("\n".join([f"resume: this run differs from that of {manifest.path}:", *lines, f"{remedy}, {accept}"]))


def machine_differences(then: PlainData, now: PlainData) -> list[str]:
    """One line if software or machine differ, so that the result may not be equal bit for bit; else none.

    Args:
        then: facts of the checkpoint's manifest.
        now: facts of this run.
    """
    pairs = [(name, then.get("versions", {}).get(name), version) for name, version in now["versions"].items()]
    pairs += [(name.replace("_", " "), then.get(name), now[name]) for name in ("threads", "world_size")]
    differ = [f"{name} {old} then, {new} now" for name, old, new in pairs if old != new]
    return [f"resumed, but the result may differ from an uninterrupted run: {'; '.join(differ)}"] if differ else []


def resume_command(folder: Path, packages: Sequence[str] = ()) -> str:
    """The command that resumes a run; trusted packages have to be named again."""
    return shlex.join(["detkit", "train", f"resume={folder}", *trusted_argument(packages)])


def trusted_argument(packages: Sequence[str]) -> list[str]:
    """The argument that names trusted packages, if there are any."""
    return [f"trusted={','.join(packages)}"] if packages else []


def _changes(path: Path, settings: RunSettings) -> list[RecipeChange]:
    detkit = read_checkpoint(path).get("detkit")
    then = detkit.get("recipe") if isinstance(detkit, dict) else None
    if not isinstance(then, dict):
        raise CheckpointError(f"{path}: contains no recipe, so detkit did not write it")
    neutral = NEUTRAL_KEYS if settings.weights else (*NEUTRAL_KEYS, *START_KEYS)
    return [
        change
        for change in settings.changes_since(then)
        if not any(change.place == key or change.place.startswith(f"{key}.") for key in neutral)
    ]


def _table(changes: Sequence[RecipeChange]) -> Iterator[str]:
    if not changes:
        return
    cells = [("key", "then", "now", "set by")]
    cells += [
        (change.place, _format_value(change.before), _format_value(change.after), change.source)
        for change in changes[:SHOWN]
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    if len(changes) > SHOWN:
        yield f"  ... and {len(changes) - SHOWN} more"


def _remedy(manifest: CheckpointManifest, settings: RunSettings) -> str:
    folder, file = manifest.path.parent.parent, settings.recipe_file
    if file is not None and file.absolute().parent == folder.absolute():
        return "undo the changes"  # the recipe in the run's folder was edited or overridden
    older = str(settings.resume).endswith(".ckpt")
    return f"resume without changes: {resume_command(manifest.path if older else folder, settings.trusted)}"


def _format_value(value: object) -> str:
    """A value in the form of the command line."""
    return value if isinstance(value, str) else json.dumps(value)
