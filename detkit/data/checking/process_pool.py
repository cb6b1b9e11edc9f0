"""A process pool that survives the death of a worker: it reports the item of that worker and completes the others.

The pool of ``concurrent.futures`` gives up all remaining items when a worker dies, and reports neither the item that
the worker processed nor the signal.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import Pipe, Process, parent_process
from multiprocessing.connection import Connection, wait
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_ITEMS_AT_ONCE = 32  # sent to a worker in one message


class Death(NamedTuple):
    """In place of a result: the process that processed the item died."""

    how: str  # name of the signal, or the exit code


class _Worker(Generic[Item, Result]):
    """A process, and the numbers of the items whose results it has not sent yet."""

    def __init__(self, work: Callable[[Item], Result]) -> None:
        self.numbers: deque[int] = deque()
        self.pipe, theirs = Pipe()
        self.process = Process(target=_serve, args=(theirs, work), daemon=True)
        self.process.start()
        theirs.close()  # the end of the process then closes the pipe

    def give(self, waiting: deque[int], items: Sequence[Item]) -> bool:
        """Send the next items, and return whether there were any; without items the process ends."""
        self.numbers.extend(waiting.popleft() for _ in range(min(_ITEMS_AT_ONCE, len(waiting))))
        with suppress(BrokenPipeError):  # the process died; ``receive`` reports it
            self.pipe.send([items[number] for number in self.numbers])
        return bool(self.numbers)

    def receive(self) -> tuple[int, Result | Death]:
        """The number of the first item without a result, and its result."""
        try:
            result = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode or 0
            result = Death(signal.Signals(-code).name if code < 0 else f"exit code {code}")
        return self.numbers.popleft(), result


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work_on_all(
    work: Callable[[Item], Result], items: Sequence[Item], num_workers: int
) -> Iterator[tuple[int, Result | Death]]:
    """The number of each item and its result, in the order in which they finish.

    A worker sends the result of an item before it begins the next. So it died on the first item without a result. An
    exception in ``work`` ends the worker too.

    Args:
        work: called in a worker; it and its results must be picklable.
        items: to work on.
        num_workers: processes.

    Raises:
        ValueError: if ``num_workers`` is less than 1.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1; got {num_workers}")
    waiting = deque(range(len(items)))
    workers: list[_Worker[Item, Result]] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < num_workers:
                workers.append(_Worker(work))
                workers[-1].give(waiting, items)
            ready = wait([worker.pipe for worker in workers])
            for worker in [worker for worker in workers if worker.pipe in ready]:
                number, result = worker.receive()
                if isinstance(result, Death):
                    workers.remove(worker)
                    waiting.extendleft(reversed(worker.numbers))
                elif not worker.numbers and not worker.give(waiting, items):
                    workers.remove(worker)
                    worker.process.join()
                yield number, result
    finally:
        for worker in workers:
            worker.process.terminate()
            worker.process.join()


def _serve(pipe: Connection, work: Callable[[Item], Result]) -> None:
    """Send results until there are no items, or until the parent process has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    parent = parent_process()
    assert parent is not None, "a worker is started by another process"
    while pipe in wait([pipe, parent.sentinel]) and (items := pipe.recv()):
        for item in items:
            pipe.send(work(item))
