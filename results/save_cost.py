"""Time that a save of a checkpoint takes, part by part.

    python -m results.save_cost recipe=yolo_csp [folder=/tmp]

The state is that of a run: weights, their average, and the state of the optimizer after a step. The parts are measured
alone; the whole save is measured as training calls it. Each figure is the median of five.
"""

import hashlib
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from detkit import recipe
from detkit.checkpoint import checkpoint_path, read_checkpoint, write_checkpoint
from detkit.training import parameter_groups

ROUNDS, CLASSES = 5, 80


def state_of(plan: recipe.Plan) -> dict[str, Any]:
    """A state as large as that of a training checkpoint of the recipe."""
    model = recipe.build_model(plan, CLASSES)
    node = {**plan.config["optimizer"], "_partial_": True}
    optimizer = recipe.instantiate(node)(parameter_groups(model))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    weights = dict(model.state_dict())
    average = {name: tensor.clone() for name, tensor in weights.items()}
    return {"state_dict": average, "current_model_state": weights, "optimizer_states": [optimizer.state_dict()]}


def seconds(call: Callable[[], object]) -> float:
    """Median seconds of a call."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def parts_of_a_save(state: dict[str, Any], folder: Path) -> dict[str, float]:
    """Seconds of each part, and of the whole."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content, path = buffer.getvalue(), checkpoint_path(folder, 1)

    def to_disk() -> None:
        with (folder / "raw").open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    return {
        "serialise (torch.save to memory)": seconds(lambda: torch.save(state, io.BytesIO())),
        "SHA-256": seconds(lambda: hashlib.sha256(content)),
        "write and fsync": seconds(to_disk),
        "whole save": seconds(lambda: write_checkpoint(path, state, step=1, epoch=1, score=None, facts={})),
        "read, with its check": seconds(lambda: read_checkpoint(path)),
    }


def main(argv: list[str]) -> None:
    where = [argument.removeprefix("folder=") for argument in argv if argument.startswith("folder=")]
    plan = recipe.load([argument for argument in argv if not argument.startswith("folder=")])
    recipe.check(plan)
    state = state_of(plan)
    with tempfile.TemporaryDirectory(dir=where[0] if where else None) as folder:
        times = parts_of_a_save(state, Path(folder))
        size = checkpoint_path(Path(folder), 1).stat().st_size
    table = Table("part", "ms", "MB/s", title=f"{plan.name}: {size / 1e6:.0f} MB", title_justify="left")
    for part, duration in times.items():
        table.add_row(part, f"{duration * 1000:.0f}", f"{size / 1e6 / duration:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
