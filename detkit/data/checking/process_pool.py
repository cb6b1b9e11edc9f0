"""Work on many items by several processes, of which one may die: the item it was on is known, the rest goes on."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import Pipe, Process, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_ITEMS_AT_ONCE = 32  # that a worker is given


class Death(NamedTuple):
    """The process that worked on an item died."""

    how: str  # name of the signal, or the exit code


class _Worker(NamedTuple):
    """A process, and the items (by number) that it was given and has not answered yet."""

    process: BaseProcess
    pipe: Connection
    numbers: deque[int]


def available_cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work_on_all(
    work: Callable[[Item], Result], items: Sequence[Item], num_workers: int
) -> Iterator[tuple[int, Result | Death]]:
    """The number of each item and what came of it, in the order in which they are done.

    A worker answers each item before it takes the next, so that one which dies is known to have
    died of it. An exception in ``work`` ends the worker too.

    Args:
        work: called in a worker; it and what it gives can be pickled.
        items: to work on; a few of them are with each worker at a time.
        num_workers: processes.

    Raises:
        ValueError: if ``num_workers`` is less than 1.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1; got {num_workers}")
    waiting = deque(range(len(items)))
    workers: dict[Any, _Worker] = {}
    try:
        while waiting or workers:
            while waiting and len(workers) < num_workers:
                worker = _start(work)
                workers[worker.pipe] = worker
                _give(worker, waiting, items)
            for pipe in wait(list(workers)):
                worker = workers[pipe]
                number, result = worker.numbers[0], _receive(worker)
                if isinstance(result, Death):
                    del workers[pipe]
                    waiting.extendleft(reversed(worker.numbers))
                elif not worker.numbers and not _give(worker, waiting, items):
                    del workers[pipe]
                    worker.process.join()
                yield number, result
    finally:
        for worker in workers.values():
            worker.process.terminate()
            worker.process.join()


def _start(work: Callable[[Any], Any]) -> _Worker:
    ours, theirs = Pipe()
    process = Process(target=_serve, args=(theirs, work), daemon=True)
    process.start()
    theirs.close()  # so that its end is seen when the process ends
    return _Worker(process, ours, deque())


def _give(worker: _Worker, waiting: deque[int], items: Sequence[Any]) -> bool:
    """Whether there was work left; if not, the worker is told to end."""
    worker.numbers.extend(waiting.popleft() for _ in range(min(_ITEMS_AT_ONCE, len(waiting))))
    with suppress(BrokenPipeError):  # that it died is read from the pipe next
        worker.pipe.send([items[number] for number in worker.numbers])
    return bool(worker.numbers)


def _receive(worker: _Worker) -> Any:
    try:
        result = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        code = worker.process.exitcode or 0
        result = Death(signal.Signals(-code).name if code < 0 else f"exit code {code}")
    worker.numbers.popleft()
    return result


def _serve(pipe: Connection, work: Callable[[Any], Any]) -> None:
    """What a worker does until it is given nothing, or the process that started it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which then ends its workers
    parent = parent_process()
    assert parent is not None, "a worker is started by another process"
    while pipe in wait([pipe, parent.sentinel]) and (items := pipe.recv()):
        for item in items:
            pipe.send(work(item))
