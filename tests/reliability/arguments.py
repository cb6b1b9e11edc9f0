"""Arguments and output of the programs that break things."""

import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table


def read(arguments: Sequence[str], **defaults: int) -> dict[str, int]:
    """``name=number`` for each name in the defaults."""
    given = dict(defaults)
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name not in defaults:
            sys.exit(f"{argument}: there are {', '.join(f'{key}=N' for key in defaults)}")
        given[name] = int(value)
    return given


def show(title: str, rows: Sequence[Sequence[object]], headings: Sequence[str]) -> None:
    """A table on the screen."""
    table = Table(*headings, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console(width=160).print(table)


def finish(broken: Sequence[str], tried: int, promise: str) -> None:
    """Say whether the promise held, and exit with 1 if it did not."""
    for line in broken:
        sys.stdout.write(f"BROKEN: {line}\n")
    sys.stdout.write(f"{promise}: {tried} tried, {len(broken)} broken\n")
    sys.exit(1 if broken else 0)


def progress(done: int, total: int) -> None:
    """A line that overwrites itself."""
    if sys.stderr.isatty() or done == total:
        sys.stderr.write(f"\r{done}/{total}" + ("\n" if done == total else ""))


Progress = Callable[[int, int], None]
