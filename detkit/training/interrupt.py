"""Ctrl-C: finish the step, save, stop."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import lightning as L

EXIT_CODE = 130
NOTE = b"\nstopping after this step; Ctrl-C again stops at once, without saving\n"


class TrainingStopped(BaseException):
    """Training was asked to stop. Like KeyboardInterrupt, nothing on the way may swallow it."""

    def __init__(self, at_border: bool) -> None:
        super().__init__("training was stopped by the user")
        self.at_border = at_border  # the weights are those of a whole step


class Interrupt:
    """Whether Ctrl-C was pressed; pressed again, it stops at once."""

    def __init__(self) -> None:
        self._requested = False
        self._process = os.getpid()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C over, where that is possible: signals belong to the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def stop_if_requested(self, trainer: L.Trainer) -> None:
        """To be called at the border of a step, by all ranks; they stop together.

        Raises:
            TrainingStopped: if Ctrl-C was pressed on any rank.
        """
        if trainer.strategy.reduce_boolean_decision(self._requested, all=False):
            raise TrainingStopped(at_border=True)

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a data loader's worker: it has to deliver until the end
        if self._requested:
            raise TrainingStopped(at_border=False)
        self._requested = True
        os.write(2, NOTE)  # print is not for signal handlers
