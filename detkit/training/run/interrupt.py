"""SIGTERM and Ctrl-C: finish the step, save, stop."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import lightning as L

from detkit.training.distributed.agreement import TrainingStopped, agreed

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME_REQUEST_S = 1.0  # a launcher passes on what it gets, beside a terminal or a cluster that tells all processes
NOTE = b"\nstopping after this step; the same again stops at once, without saving\n"


class Interrupt:
    """Whether a signal asked to stop; a second one stops at once.

    # Note [our handler alone]
    Lightning would put its own handler for SIGTERM before this one: it talks to other ranks from
    within the handler, which can block for ever, and ends the run between two batches with exit
    code 0 and nothing saved. On SLURM another one saves and requeues by itself. On several ranks
    it also broadcasts before every batch whether its handler was called, and waits for the device
    to hear it. `own_signals` keeps all of them away.

    Attributes:
        number: of the first signal that came; 0: none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._since = 0.0
        self._process = os.getpid()

    def own_signals(self, trainer: L.Trainer) -> None:
        """Keep Lightning's handlers away from this trainer; before it is run."""
        # There is no public way.
        trainer._signal_connector.register_signal_handlers = lambda: None  # noqa: SLF001
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # noqa: SLF001

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals over, where that is possible: they belong to the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop_if_requested(self, trainer: L.Trainer) -> None:
        """To be called at the border of a step, by all ranks; they stop together.

        Raises:
            TrainingStopped: if a signal came to any rank.
        """
        stop(*agreed(trainer, self.number))

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            _as_a_child(number)
        elif not self.number:
            self.number, self._since = number, time.monotonic()
            os.write(2, NOTE)  # print is not for signal handlers
        elif time.monotonic() - self._since >= SAME_REQUEST_S:
            raise TrainingStopped(at_border=False, number=number)


def stop(number: int) -> None:
    """Stop at the border of a step.

    Args:
        number: of the signal that all ranks agreed on; 0: go on.

    Raises:
        TrainingStopped: if there was one.
    """
    if number:
        raise TrainingStopped(at_border=True, number=number)


def _as_a_child(number: int) -> None:
    """In a process that was forked from ours: Ctrl-C is for its parent, SIGTERM is its end."""
    if number != signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
