"""Programs that may die: each runs in a fork of this process, which has imported everything once."""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple


class Ended(NamedTuple):
    """How a program ended."""

    code: int  # as a shell shows it: 128 + the signal, if one killed it
    said: str  # output and errors


class Forked:
    """A program in a process of its own.

    Args:
        program: what it does.
        output: where to write what it says.
    """

    def __init__(self, program: Callable[[], object], output: Path) -> None:
        self.output = output
        sys.stdout.flush()
        self.process = os.fork()
        if not self.process:
            _run(program, output)

    def kill(self, number: int) -> None:
        """Send a signal; if the program is over, nothing happens, as it is not waited for yet."""
        os.kill(self.process, number)

    def wait(self) -> Ended:
        _, status = os.waitpid(self.process, 0)
        code = os.waitstatus_to_exitcode(status)
        return Ended(128 - code if code < 0 else code, self.output.read_text(errors="replace"))


def run(program: Callable[[], object], output: Path) -> Ended:
    """Run a program to its end."""
    return Forked(program, output).wait()


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """Environment variables for what runs inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _run(program: Callable[[], object], output: Path) -> None:
    """Never returns: the rest of this process is the parent's."""
    with _End():
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        program()


class _End:
    """End this process, whatever happened inside: the parent hears of it."""

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        code = 0
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else 1
        elif error is not None:
            traceback.print_exception(error)
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
