"""A process that measures one row of a benchmark.

Each row has its own process, so that it has its own number of threads and its own peak of memory, and so that a crash
ends that row alone.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, NamedTuple, ParamSpec, Self, TypeVar

from detkit.errors import DetkitError

if TYPE_CHECKING:
    from detkit.benchmark.measure.worker import Worker

REASON_CHARACTERS = 300
P = ParamSpec("P")
Answer = TypeVar("Answer")


class WorkerFailedError(Exception):
    """A worker process failed or ended; the text is the reason, in one line."""


class _Failure(NamedTuple):
    """The last answer of a process whose work raised an error."""

    reason: str


class WorkerProcess:
    """A started process with a ``Worker``.

    Args:
        threads: number of threads of the process.
        log: file to which the output of the process is appended, with the traceback of an error.

    Attributes:
        pid: of the process.
    """

    def __init__(self, threads: int, log: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, of_process = context.Pipe()
        self._process = context.Process(target=_serve, args=(of_process, threads, log))
        self._process.start()
        of_process.close()
        assert self._process.pid, "it was started"
        self.pid: int = self._process.pid

    def ask(self, method: "Callable[Concatenate[Worker, P], Answer]", *args: P.args, **kwargs: P.kwargs) -> Answer:
        """Call a method of the worker in its process.

        Args:
            method: such as ``Worker.open``.
            args: of the method.
            kwargs: of the method.

        Raises:
            WorkerFailedError: if the method raises an error or the process ends.
        """
        answer = _Failure("")
        with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the process has ended
            self._connection.send((method, args, kwargs))
            wait([self._connection, self._process.sentinel])
            if self._connection.poll():
                answer = self._connection.recv()
        if isinstance(answer, _Failure):
            reason = answer.reason or self._exit_reason()
            self.close()
            raise WorkerFailedError(reason)
        return answer

    def close(self) -> None:
        """Kill the process and the processes that it started."""
        if self._connection.closed:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()  # for a process that is not yet the leader of its group
        self._process.join()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exit_reason(self) -> str:
        self._process.join()
        code = self._process.exitcode or 0
        if code == -signal.SIGKILL:
            return "its process was killed, as happens when memory runs out"
        return f"its process ended {f'by {signal.Signals(-code).name}' if code < 0 else f'with code {code}'}"


def _serve(connection: Connection, threads: int, log: Path) -> None:
    """Answer the questions of ``WorkerProcess.ask`` until the connection is closed or a method raises an error."""
    os.setsid()  # Ctrl-C interrupts the parent alone
    with log.open("a") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)  # before torch and numpy are imported
    try:
        from detkit.benchmark.measure.worker import Worker

        worker = Worker(threads)
        with contextlib.suppress(EOFError):
            while True:
                method, args, kwargs = connection.recv()
                connection.send(method(worker, *args, **kwargs))
    except Exception as error:
        traceback.print_exc()  # before the answer, because the parent kills this process when it has the answer
        connection.send(_Failure(one_line(error)))
        raise SystemExit(1) from error


def one_line(error: BaseException) -> str:
    """The message of an error in one line, with its class unless the message is meant for users."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2])[:REASON_CHARACTERS]
    is_plain = isinstance(error, DetkitError | ValueError) or type(error) is RuntimeError
    return text if text and is_plain else f"{type(error).__name__}: {text}"
