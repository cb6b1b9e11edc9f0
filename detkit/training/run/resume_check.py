"""Whether a run that is to go on is still the run that it was: its recipe, its data, its machine."""

import hashlib
import json
import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import lightning as L
import torch

from detkit.checkpoint import CheckpointManifest, PlainData, read_checkpoint
from detkit.errors import CheckpointError, DataError, RecipeError
from detkit.training.settings import RecipeChange, RunMetadata, RunSettings

# Keys that cannot change what a run ends with, and why. All others can: max_epochs is in every schedule,
# val_batch_size in the rounding of validation.
NEUTRAL_KEYS = (
    *("name", "runs_dir", "wandb", "resume", "resume.allow_changes"),  # where a run lies and is shown
    *("data.num_workers", "data.cache_mb"),  # samples are functions of (seed, epoch, index)
    # where the data lies; what it says is compared by its fingerprint
    *("data.root", "data.train_annotations", "data.train_images", "data.val_annotations", "data.val_images"),
    "data.follow_links",
    *("data.max_unreadable", "non_finite", "max_non_finite"),  # when a run gives up, which this one has not
    *("checkpoint.every_n_steps", "checkpoint.every_minutes", "checkpoint.keep", "checkpoint.on_failure"),
    *("trainer.log_every_n_steps", "trainer.enable_progress_bar", "trainer.enable_model_summary"),
    # the machine, which `machine_differences` compares
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"),
)
START_KEYS = ("weights", "weights_except")  # a resumed run has its own weights, and need not name others again
SHOWN = 10


def run_facts(metadata: RunMetadata, world_size: int) -> PlainData:
    """What a later resume compares itself with, for the manifest of a checkpoint."""
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
    """Refuse to go on with another recipe or other data, unless the settings allow changes.

    Args:
        manifest: of the checkpoint to go on from.
        settings: of this run.
        metadata: of this run, as a checkpoint holds it.

    Returns:
        Lines to print about the changes that were allowed.

    Raises:
        RecipeError: if a key has changed that can change the result; data that changed are named with it.
        DataError: if only the data have changed.
        CheckpointError: if the checkpoint cannot be read.
    """
    now = run_facts(metadata, world_size=1)
    changes = [] if _same("recipe_sha256", manifest.facts, now) else _changes(manifest.path, settings)
    data = [] if _same("data_fingerprint", manifest.facts, now) else [_data_line(manifest.facts, now)]
    if not changes and not data:
        return []
    lines = [*_table(changes), *data]
    if settings.allow_changes:
        return ["resumed with changes; the result is neither that of the run before nor that of this recipe:", *lines]
    error = RecipeError if changes else DataError
    remedy = _remedy(manifest, settings) if changes else "bring back the data of then"
    accept = "or accept what has changed: resume.allow_changes=true"
    raise error("\n".join([f"resume: this is not the run of {manifest.path}:", *lines, f"{remedy}, {accept}"]))


def machine_differences(then: PlainData, now: PlainData) -> list[str]:
    """One line if the run goes on where its result is not promised bit for bit; none if it is.

    Args:
        then: facts of the checkpoint's manifest.
        now: facts of this run.
    """
    pairs = [(name, then.get("versions", {}).get(name), version) for name, version in now["versions"].items()]
    pairs += [(name.replace("_", " "), then.get(name), now[name]) for name in ("threads", "world_size")]
    differ = [f"{name} {old} then, {new} now" for name, old, new in pairs if old != new]
    return [f"resumed, but not bit for bit the run that was never stopped: {'; '.join(differ)}"] if differ else []


def resume_command(folder: Path, packages: Sequence[str] = ()) -> str:
    """The command that goes on with a run: its folder holds its recipe; trusted packages have to be named again."""
    return shlex.join(["detkit", "train", f"resume={folder}", *trusted_argument(packages)])


def trusted_argument(packages: Sequence[str]) -> list[str]:
    """The argument that names trusted packages again, where there are any."""
    return [f"trusted={','.join(packages)}"] if packages else []


def _same(name: str, then: Mapping[str, object], now: Mapping[str, object]) -> bool:
    return then.get(name) == now[name]


def _changes(path: Path, settings: RunSettings) -> list[RecipeChange]:
    detkit = read_checkpoint(path).get("detkit")
    then = detkit.get("recipe") if isinstance(detkit, dict) else None
    if not isinstance(then, dict):
        raise CheckpointError(f"{path}: holds no recipe, so it is no checkpoint of detkit's training")
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
    cells += [(change.place, _spell(change.before), _spell(change.after), change.source) for change in changes[:SHOWN]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    if len(changes) > SHOWN:
        yield f"  ... and {len(changes) - SHOWN} more"


def _data_line(then: Mapping[str, object], now: Mapping[str, object]) -> str:
    old, new = (str(facts.get("data_fingerprint"))[:12] for facts in (then, now))
    return f"  the data have other images, boxes or classes: fingerprint {old} then, {new} now"


def _remedy(manifest: CheckpointManifest, settings: RunSettings) -> str:
    folder, file = manifest.path.parent.parent, settings.recipe_file
    if file is not None and file.absolute().parent == folder.absolute():
        return "undo the changes"  # the run's own recipe was taken, and edited or overridden
    older = str(settings.resume).endswith(".ckpt")
    return f"go on as it was: {resume_command(manifest.path if older else folder, settings.trusted)}"


def _spell(value: object) -> str:
    """A value as the command line reads it."""
    return value if isinstance(value, str) else json.dumps(value)
