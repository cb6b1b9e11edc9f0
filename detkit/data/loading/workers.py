"""Detects workers that were killed while the loader waits for a batch, and names the image that they worked on.

# Note [death of a worker]
Torch's SIGCHLD handler raises wherever the main thread is when a worker dies, even in the middle of a step or a save.
Without a handler the wait for a batch may never end. So our handler is installed only during that wait. A worker that
dies at another time is detected at the next wait, which is between two steps.

# Note [no worker is left at the end]
Workers ignore SIGTERM. When the interpreter ends, multiprocessing sends SIGTERM to the remaining workers and waits for
them without a limit; torch ends its workers itself only if it pins memory. So an atexit function kills them before.
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
# Errors that a wait for a batch may raise after a worker died: of torch, and of the connection to the worker.
WORKER_ERRORS = (RuntimeError, OSError, EOFError)
_EXIT_WAIT_S = 10.0  # from the end of a worker's connection to that of its process; less even on a busy machine
_TORCH_ERROR_WAIT_S = 1.0  # torch raises RuntimeError also for a bug in a worker that goes on
CurrentWork = np.ndarray  # (3,) int64: epoch and row of the sample, row of the image; IDLE: none
_REMEDIES: dict[int, str] = {
    signal.SIGKILL: "Usually the memory was full: fewer data.num_workers and a smaller data.cache_mb need less.",
    signal.SIGBUS: "Usually /dev/shm, which holds the batches, was full: make it larger (docker run --shm-size=8g).",
}
_CRASHED = "The decoder or a transform crashed: look at that image."


class WorkerEnd(NamedTuple):
    """A worker process that ended while the loader needed it."""

    worker: int | None  # None: it ended before it registered
    num_workers: int
    process: int
    exit_code: int  # minus the signal, as in multiprocessing
    current_work: tuple[int, int, int]  # epoch and row of the sample, row of the image; IDLE: none

    def describe(self) -> str:
        """Which worker ended, and by which code or signal."""
        name = "a data worker" if self.worker is None else f"data worker {self.worker + 1} of {self.num_workers}"
        if self.exit_code >= 0:
            return f"{name} (process {self.process}) ended with code {self.exit_code}"
        return f"{name} (process {self.process}) was killed by {signal.Signals(-self.exit_code).name}"

    def remedy(self) -> str:
        """What the user can do against it."""
        return _REMEDIES.get(-self.exit_code, _CRASHED)


class Workers:
    """The ``number`` worker processes of one loader."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._shared = torch.full((number, 4), IDLE)  # CurrentWork, and the id of the process
        if number:
            self._shared.share_memory_()
        self._processes: list[BaseProcess] = []

    def register(self, worker: int) -> CurrentWork:
        """Called in a worker: the shared memory in which it notes its current work, readable after its death."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._shared[worker, 3] = os.getpid()
        return self._shared[worker, :3].numpy()

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Context in which torch starts the processes; it removes torch's handler of SIGCHLD."""
        others = set(multiprocessing.active_children())
        atexit.register(self.kill_all)  # called before multiprocessing's own function, which was registered earlier
        try:
            with self.waiting():
                yield
        finally:
            self._processes = [child for child in multiprocessing.active_children() if child not in others]

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Context of each wait for a batch: the death of a worker raises a RuntimeError in it."""
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
        """The first worker that ended, or None."""
        for child in self._processes:
            if child.exitcode is not None:
                break
        else:
            return None
        *work, processes = self._shared.T.tolist()
        worker = processes.index(child.pid) if child.pid in processes else None
        epoch, sample, image = (numbers[worker] if worker is not None else IDLE for numbers in work)
        return WorkerEnd(worker, self.number, child.pid or 0, child.exitcode, (epoch, sample, image))

    def ended_after(self, error: BaseException) -> WorkerEnd | None:
        """As ``ended``, after a wait for a batch raised ``error``; waits until the process has ended."""
        limit = _TORCH_ERROR_WAIT_S if isinstance(error, RuntimeError) else _EXIT_WAIT_S
        deadline = time.monotonic() + (limit if self._processes else 0)
        while (end := self.ended()) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return end

    def kill_all(self) -> None:
        """Kill the remaining workers without waiting: they may wait for a lock that the dead worker held."""
        for child in self._processes:
            child.kill()  # they ignore SIGTERM
        atexit.unregister(self.kill_all)

    def _raise_if_ended(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        if end := self.ended():
            raise RuntimeError(end.describe())
