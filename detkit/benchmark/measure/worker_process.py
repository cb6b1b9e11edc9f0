"""The other end of a worker: questions to a process of its own, and its answers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[3]
LAST_S = 10.0  # for a worker to end by itself


class FailedError(Exception):
    """A worker could not do what it was asked for; the text is its reason."""


class Remote:
    """A worker.

    Args:
        threads: of everything that it does.
        log: where the worker's own output goes; it grows.

    Attributes:
        pid: of its process.
    """

    def __init__(self, threads: int, log: Path) -> None:
        paths = [str(ROOT), str(Path.cwd()), os.environ.get("PYTHONPATH", "")]
        fixed = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        with log.open("a") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "detkit.benchmark.measure.worker", str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env={**os.environ, **fixed, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                start_new_session=True,  # Ctrl-C is for the program that asks
            )
        self.pid = self._process.pid
        self._log = log

    def ask(self, name: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a question, see ``Worker``.

        Raises:
            FailedError: if there is none: an error, or the process ended.
        """
        self._tell([name, arguments])
        assert self._process.stdout, "it is a pipe"
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"failed": self._end()}
        if "failed" in answer:
            self.close()
            raise FailedError(answer["failed"])
        return answer

    def close(self) -> None:
        """End it, and what it started."""
        assert self._process.stdin and self._process.stdout, "they are pipes"
        if self._process.stdout.closed:
            return  # its number may be another's by now
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:  # what it was told last it never read
                continue

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tell(self, values: Any) -> None:
        assert self._process.stdin, "it is a pipe"
        try:
            self._process.stdin.write(json.dumps(values) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            said = self._end()
            self.close()
            raise FailedError(said) from error

    def _end(self) -> str:
        """How the process ended, without a word."""
        try:
            code = self._process.wait(LAST_S)
        except subprocess.TimeoutExpired:
            return f"its process closed its answers and had not ended {LAST_S:g} s later"
        if code == -signal.SIGKILL:
            return "its process was killed, as happens when memory runs out"
        return (
            f"its process ended by {signal.Signals(-code).name}" if code < 0 else f"its process ended with code {code}"
        )
