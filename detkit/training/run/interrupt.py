"""SIGTERM and Ctrl-C: complete the step, save a checkpoint, stop."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import lightning as L

from detkit.training.distributed.agreement import TrainingStopped, max_over_ranks

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME_REQUEST_S = 1.0  # one request may arrive twice, from the terminal and from the launcher
NOTE = b"\nstopping after this step; a second signal stops at once, without saving\n"


class Interrupt:
    """The signal handler of a run: the first signal requests a stop, a second one stops at once.

    # Note [Lightning's signal handlers are disabled]
    Lightning's handler for SIGTERM communicates with other ranks, which can block without end, and ends the run
    between two batches with exit code 0 and without a checkpoint. Its handler for SLURM saves and requeues. On several
    ranks Lightning also broadcasts before every batch whether its handler was called, which waits for the device.
    ``disable_lightning_handlers`` disables all of them.

    Attributes:
        number: number of the first signal; 0: no signal has arrived.
    """

    def __init__(self) -> None:
        self.number = 0
        self._since = 0.0
        self._process = os.getpid()

    def disable_lightning_handlers(self, trainer: L.Trainer) -> None:
        """Disable Lightning's handlers of this trainer, before it runs. Lightning has no public interface for it."""
        trainer._signal_connector.register_signal_handlers = lambda: None  # noqa: SLF001
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # noqa: SLF001

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals while the context is active. Python allows it in the main thread only."""
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
        """Stop all ranks together; all of them must call this at the end of a step.

        Raises:
            TrainingStopped: if any rank received a signal.
        """
        stop(*max_over_ranks(trainer, self.number))

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked child, e.g. a data worker
            if number != signal.SIGINT:  # the parent handles Ctrl-C
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
        elif not self.number:
            self.number, self._since = number, time.monotonic()
            os.write(2, NOTE)  # print is not safe in a signal handler
        elif time.monotonic() - self._since >= SAME_REQUEST_S:
            raise TrainingStopped(at_step_end=False, number=number)


def stop(number: int) -> None:
    """Stop after a complete step.

    Args:
        number: number of the signal, equal on all ranks; 0: continue.

    Raises:
        TrainingStopped: if there is a signal.
    """
    if number:
        raise TrainingStopped(at_step_end=True, number=number)
