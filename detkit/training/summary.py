"""The last words of a run."""

import shlex
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from detkit.training.callbacks.best import BestDetector
from detkit.training.run.folder import RunFolder
from detkit.training.run.resume_check import trusted_argument


def print_summary(
    console: Console, best: BestDetector, folder: RunFolder, data_root: Any, packages: Sequence[str]
) -> None:
    """Each class in the best epoch, where its detector lies and how to evaluate it."""
    lines = []
    if best.score is not None and best.metric is not None:
        table = Table("class", best.metric.per_class_name, title=f"best epoch: {best.epoch}", title_justify="left")
        for name, value in best.per_class.items():
            table.add_row(Text(name), _score(value))
        numbers = "  ".join(f"{name.removeprefix('val/')} {_score(value)}" for name, value in best.numbers.items())
        console.print(table)
        lines.append(numbers)
    arguments = [f"checkpoint={folder.detector}", *([f"data.root={data_root}"] if data_root else [])]
    arguments += trusted_argument(packages)
    lines += [f"detector: {folder.detector}", f"evaluate: detkit evaluate {shlex.join(arguments)}"]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _score(value: float) -> str:
    return "-" if value < 0 else f"{value:.3f}"
