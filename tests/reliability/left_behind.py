"""What a run leaves, as values that two runs can be compared by: bit for bit, and by name where they differ."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from detkit.checkpoint import CheckpointManifest, manifests_in, read_checkpoint, read_detector
from detkit.training.run.resume_check import NEUTRAL_KEYS

CLOCK = {"seconds"}  # in the states of callbacks: what no resume can repeat


def left_by(folder: Path) -> dict[str, Any]:
    """All that a run is for; folders, worker numbers and times left out.

    The best checkpoint is the one with the highest score, the later of two.
    """
    manifests = manifests_in(folder / "checkpoints")
    scored = [manifest for manifest in manifests if manifest.score is not None]
    best = max(scored, key=lambda manifest: (manifest.score, manifest.step), default=None)
    detector = read_detector(folder / "detector.safetensors") if (folder / "detector.safetensors").exists() else None
    return {
        **_checkpoint(manifests[-1] if manifests else None),
        "best": _checkpoint(best),
        "metrics": (folder / "metrics.csv").read_text().splitlines() if (folder / "metrics.csv").exists() else None,
        "detector": detector and {"weights": detector[0], "about": _about(detector[1])},
    }


def differences(a: Any, b: Any, place: str = "") -> list[str]:
    """Places where two values, whatever is nested, are not the same to the last bit."""
    return list(_differences(a, b, place))


def _checkpoint(manifest: CheckpointManifest | None) -> dict[str, Any]:
    if manifest is None:
        return {}
    state = read_checkpoint(manifest.path)
    callbacks = {
        name: {key: value for key, value in content.items() if key not in CLOCK}
        for name, content in state["callbacks"].items()
    }
    return {
        "step": (manifest.step, manifest.epoch, manifest.score),
        "weights": state.get("current_model_state", state["state_dict"]),  # those that train
        "ema": state["state_dict"],
        "optimizer": state["optimizer_states"],
        "schedule": state["lr_schedulers"],
        "progress": state["loops"],
        "callbacks": callbacks,
        "about": _about(state["detkit"]),
    }


def _about(metadata: dict[str, Any]) -> dict[str, Any]:
    """Without the keys that may differ from start to start."""
    recipe = dict(metadata["recipe"])
    for key in NEUTRAL_KEYS:
        top, _, inner = key.partition(".")
        if isinstance(recipe.get(top), dict):
            recipe[top] = {name: value for name, value in recipe[top].items() if name != inner}
        recipe.pop(key, None)
    return {**metadata, "recipe": recipe}


def _differences(a: Any, b: Any, place: str) -> Iterator[str]:
    if type(a) is not type(b):
        yield f"{place}: {type(a).__name__}, {type(b).__name__}"
    elif isinstance(a, dict):
        for key in {**a, **b}:
            inner = f"{place}.{key}" if place else str(key)
            yield from _differences(a[key], b[key], inner) if key in a and key in b else [f"{inner}: in one only"]
    elif isinstance(a, list | tuple) and len(a) == len(b):
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _differences(x, y, f"{place}.{number}")
    elif not _same_bits(a, b):
        yield f"{place}: {_short(a)}, {_short(b)}"


def _same_bits(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()
    return repr(a) == repr(b)  # which gives every bit of a float, and makes nan the same as nan


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"{len(value)} entries" if isinstance(value, list | tuple) else repr(value)
