"""A progress bar for each step of an export, and the seconds that each step took."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Self

from detkit.progress import progress_bar


class TimedSteps:
    """Named steps of one export, each with a bar on the terminal.

    Attributes:
        seconds: of each finished step, by name.
    """

    def __init__(self) -> None:
        self._progress = progress_bar()
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextlib.contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        """Show and time one step.

        Args:
            name: shown beside the bar.
            total: number of parts of the step; None if unknown.

        Yields:
            A function to call after each finished part.
        """
        start_s = time.perf_counter()
        task = self._progress.add_task(name, total=total)
        try:
            yield lambda: self._progress.advance(task)
        finally:
            self._progress.remove_task(task)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start_s
