"""What goes on, on a terminal while it goes on, and how long it took."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Steps:
    """Steps of one piece of work, each with a bar; where there is no terminal, nothing is shown.

    Attributes:
        seconds: of each step that is done.
    """

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = BarColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
        name = TextColumn("{task.description}", markup=False)
        self._progress = Progress(name, *columns, console=console, transient=True, disable=not console.is_terminal)
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextlib.contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        """One of them.

        Args:
            name: as it is shown.
            total: parts of it, for the time that is left; None: not known.

        Yields:
            To be called when a part is done.
        """
        start_s = time.perf_counter()
        task = self._progress.add_task(name, total=total)
        try:
            yield lambda: self._progress.advance(task)
        finally:
            self._progress.remove_task(task)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start_s
