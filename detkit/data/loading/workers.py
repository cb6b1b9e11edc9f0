"""Workers that are killed: noticed where a batch is waited for, and named with the image that they were on.

# Note [death of a worker]
Torch's own handler raises wherever the main thread is when a worker dies, in the middle of a step or of
a save, and without it a wait can take for ever. So a handler is there only while a batch is waited for:
a worker that dies at another time is noticed at the next wait, which is the border of a step.

# Note [no worker is left at the end]
Workers ignore SIGTERM, and multiprocessing sends it to those that are left when the interpreter ends, and
waits for them without a limit. Torch ends its own there only if it pins memory. So whatever a program
dies of, they are killed before that.
"""

import atexit
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import NamedTuple

import numpy as np
import torch

IDLE = -1
# What a wait for a batch may raise when a worker is gone: torch, and the connection that its memory comes by.
WORKER_LOST = (RuntimeError, OSError, EOFError)
_GONE_S = 10.0  # a process that has let go of its connections is gone within less, on a busy machine too
_TOLD_S = 1.0  # torch's own error may be of a worker that lives, whose bug it brings
AtWork = np.ndarray  # (3,) int64: epoch and row of the sample, row of the image; IDLE: none
_REMEDIES: dict[int, str] = {
    signal.SIGKILL: "Most often the memory was used up: fewer data.num_workers and a smaller data.cache_mb need less.",
    signal.SIGBUS: "Most often /dev/shm is full, through which batches go: make it larger (docker run --shm-size=8g).",
}
_CRASHED = "The decoder or a transform crashed: look at that image."


class WorkerEnd(NamedTuple):
    """A worker that ended before its time."""

    worker: int | None  # None: before it began
    num_workers: int
    process: int
    exit_code: int  # minus the signal, as in multiprocessing
    at_work: tuple[int, int, int]  # epoch and row of the sample, row of the image; IDLE: none

    def how(self) -> str:
        """Which worker, and what ended it."""
        name = "a data worker" if self.worker is None else f"data worker {self.worker + 1} of {self.num_workers}"
        if self.exit_code >= 0:
            return f"{name} (process {self.process}) ended with code {self.exit_code}"
        return f"{name} (process {self.process}) was killed by {signal.Signals(-self.exit_code).name}"

    def remedy(self) -> str:
        """What can be done about it."""
        return _REMEDIES.get(-self.exit_code, _CRASHED)


class Workers:
    """The worker processes of one loader.

    Args:
        number: of them.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._shared = torch.full((number, 4), IDLE)  # AtWork, and the process
        if number:
            self._shared.share_memory_()
        self._processes: list[BaseProcess] = []

    def begin(self, worker: int) -> AtWork:
        """Called in a worker: where it notes what it does, which outlives it."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._shared[worker, 3] = os.getpid()
        return self._shared[worker, :3].numpy()

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Around what starts the processes; torch's handler is gone afterwards."""
        others = set(multiprocessing.active_children())
        atexit.register(self.end_all)  # the last one to register comes first; multiprocessing did with its import
        try:
            with self.waiting():
                yield
        finally:
            self._processes = [child for child in multiprocessing.active_children() if child not in others]

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around every wait for a batch: the death of a worker ends the wait, with a RuntimeError."""
        if not self.number or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGCHLD, self._raise_if_ended)
        try:
            self._raise_if_ended()
            yield
        finally:
            signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)

    def ended(self) -> WorkerEnd | None:
        """The first worker that ended, if one did."""
        for child in self._processes:
            if child.exitcode is not None:
                break
        else:
            return None
        *work, processes = self._shared.T.tolist()
        worker = processes.index(child.pid) if child.pid in processes else None
        epoch, sample, image = (numbers[worker] if worker is not None else IDLE for numbers in work)
        return WorkerEnd(worker, self.number, child.pid or 0, child.exitcode, (epoch, sample, image))

    def ended_by_now(self, error: BaseException) -> WorkerEnd | None:
        """As ``ended``, of a worker that a wait for a batch has just failed for."""
        limit = _TOLD_S if isinstance(error, RuntimeError) else _GONE_S
        deadline = time.monotonic() + (limit if self._processes else 0)
        while (end := self.ended()) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return end

    def end_all(self) -> None:
        """Do not wait for those that are left: they may wait for a lock that the dead one held."""
        for child in self._processes:
            child.kill()  # SIGTERM they ignore
        atexit.unregister(self.end_all)

    def _raise_if_ended(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        if end := self.ended():
            raise RuntimeError(end.how())
