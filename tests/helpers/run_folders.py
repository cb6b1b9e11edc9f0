"""What a run left in its folder: its table, its state, and the folder as a kill leaves it."""

import csv
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detkit.checkpoint import latest_checkpoint, manifests_in, read_checkpoint


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def copy_of_step(whole: Path, runs: Path, step: int) -> Path:
    """The run folder as a kill after the save of a step leaves it."""
    folder = runs / "toy" / whole.name
    shutil.copytree(whole, folder)
    for manifest in manifests_in(folder / "checkpoints"):
        if manifest.step > step:
            manifest.path.unlink()
    return folder


def state_of(folder: Path) -> dict[str, Any]:
    manifest = latest_checkpoint(folder / "checkpoints")
    assert manifest is not None
    state = read_checkpoint(manifest.path)
    return {key: state[key] for key in ("state_dict", "current_model_state", "optimizer_states", "callbacks", "loops")}


def assert_same(a: Any, b: Any, place: str = "") -> None:
    """Bit for bit, whatever is nested."""
    assert type(a) is type(b), place
    if isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            assert_same(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), place
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{place}.{number}")
    elif isinstance(a, Tensor):
        assert torch.equal(a, b), place
    else:
        assert a == b, place
