"""Run detkit's scripts as a shell would, each in a fork of one process that has imported torch and Lightning.

The imports are most of the seconds of a short command. Arguments, folder, environment, output and exit code are those
of a process of its own; what a start imports, and how fast it answers, has to be tested in a real one.

As a program it is that process: a line of JSON on its input is a command, a line of its output the exit code.
"""

import functools
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.helpers import ROOT

DEFAULTS = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


class Done(subprocess.CompletedProcess[str]):
    """Words, exit code, standard output and error."""


def run_script(words: Sequence[str], cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> Done:
    """Run ``scripts/NAME.py ARGUMENTS``, or ``-m MODULE ARGUMENTS``.

    Args:
        words: path of the script, relative to ``cwd``, and its arguments.
        cwd: where it stands.
        environment: of the process; None: that of the tests with one thread, and detkit of this checkout.
    """
    environment = {**os.environ, **DEFAULTS} if environment is None else dict(environment)
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder, "out"), Path(folder, "err")
        server = _server()
        assert server.stdin and server.stdout
        server.stdin.write(json.dumps([list(words), str(cwd), environment, *map(str, outputs)]) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        assert answer, f"the process that runs scripts ended at {words}"
        return Done(words, int(answer), *(path.read_text() for path in outputs))


@functools.cache
def _server() -> subprocess.Popen[str]:
    """One for this process; it ends with it, because its input does."""
    words = [sys.executable, "-m", "tests.helpers.warm_scripts"]
    environment = {**os.environ, **DEFAULTS}
    pipe = subprocess.PIPE
    return subprocess.Popen(words, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)


def _serve() -> None:
    import albumentations  # noqa: F401  (what scripts would spend their time on)

    import detkit.inference.predict.run
    import detkit.inspection
    import detkit.training
    import detkit.weights  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if not child:
            _run(*json.loads(line))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _run(words: list[str], cwd: str, environment: dict[str, str], output: str, error: str) -> None:
    """In the child: become the command, and end."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for path, number in ((os.devnull, 0), (output, 1), (error, 2)):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT
        os.dup2(os.open(path, flags), number)
    code = 0
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path[0] = str(Path(words[0]).absolute().parent)
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code and not isinstance(end.code, int):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:  # noqa: BLE001  (as the interpreter does at the end of a program)
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve()
