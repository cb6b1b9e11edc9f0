"""The summary that a run prints at its end."""

import shlex

from rich.console import Console
from rich.table import Table
from rich.text import Text

from detkit.training.callbacks.best import BestDetector
from detkit.training.callbacks.progress import score_text
from detkit.training.module import VALIDATION
from detkit.training.run.folder import RunFolder
from detkit.training.run.resume_check import trusted_argument
from detkit.training.settings import RunSettings


def print_summary(console: Console, best: BestDetector, folder: RunFolder, settings: RunSettings) -> None:
    """Print the numbers of the best epoch, the path of the detector and the command that evaluates it."""
    lines = []
    if best.score is not None and best.metric is not None:
        table = Table("class", best.metric.per_class_name, title=f"best epoch: {best.epoch}", title_justify="left")
        for name, value in best.per_class.items():
            table.add_row(Text(name), score_text(value))
        console.print(table)
        shown = (f"{name.removeprefix(VALIDATION)} {score_text(value)}" for name, value in best.numbers.items())
        lines.append("  ".join(shown))
    root = [f"data.root={settings.data_root}"] if settings.data_root else []
    arguments = [f"checkpoint={folder.detector}", *root, *trusted_argument(settings.trusted_by_detector)]
    lines += [f"detector: {folder.detector}", f"evaluate: detkit evaluate {shlex.join(arguments)}"]
    print_lines(console, *lines)


def print_lines(console: Console, *lines: str) -> None:
    """Print lines without wrapping or markup, so that a path or a command can be copied."""
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
