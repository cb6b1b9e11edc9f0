"""A disk that is full, fails or may not be written to, at many places of a save and of whole runs.

    python -m tests.reliability.full_disk [places=64] [runs=8]

The promise: no checkpoint that was whole is lost, the message names the file and the reason, the run
ends with code 74 or goes on by its setting, and once there is room again the step is saved after all.
"""

import errno
import functools
import itertools
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from detkit.errors import DetkitError, StorageError, run_script
from detkit.training import train
from detkit.training.run.folder import RunFolder
from tests.helpers.toy import toy_parts
from tests.reliability import arguments, forked
from tests.reliability.disk import AtNumber, watched
from tests.reliability.left_behind import differences, left_by
from tests.reliability.saves import NEW, begin, save, start_again, what_is_left

ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EROFS)
NOBODY = 65534
LASTS = 4  # moments that fail in a whole run: two or three saves


class Tried(NamedTuple):
    """A fault, and what came of it."""

    fault: str
    outcome: str
    broken: str  # what promise broke


def fail_at_places(folder: Path, count: int) -> Iterator[Tried]:
    """One system call of a save fails, or it and all that follow, which is what a full disk does."""
    counting = AtNumber(-1, lambda _: None)
    template = begin(folder / "template")
    shutil.copytree(template.path, folder / "counted")
    with watched(counting):
        save(RunFolder(folder / "counted"), NEW)
    names = [(number, name) for number, name in enumerate(counting.names) if not name.startswith("after")]
    ways = itertools.cycle(itertools.product((False, True), ERRORS))
    chosen = [names[i * len(names) // count % len(names)] for i in range(count)]
    for index, ((number, name), (lasting, error)) in enumerate(zip(chosen, ways, strict=False)):
        run = RunFolder(folder / str(index))
        shutil.copytree(template.path, run.path)
        fault = f"{errno.errorcode[error]}{' from here on' if lasting else ''} {name}"
        failing = watched(AtNumber(number, functools.partial(_raise, error), lasting))
        yield _try(fault, run, failing.__enter__, lambda failing=failing: failing.__exit__(None, None, None), error)


def limit_of_size(folder: Path, count: int) -> Iterator[Tried]:
    """The system's own limit on the size of files, from nothing to nearly enough."""
    run = begin(folder / "limited")
    largest = max(path.stat().st_size for path in (*run.checkpoints.iterdir(), run.detector))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for index in range(count):
        limit = largest * index // count
        yield _try(
            f"RLIMIT_FSIZE {limit}",
            run,
            functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, before[1])),
            functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, before),
            errno.EFBIG,
            again=False,
        )


def full_tmpfs(folder: Path) -> Iterator[Tried]:
    """A file system of its own that another file fills; needs the right to mount one."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False).returncode:
        return
    try:
        run, filler = begin(folder / "run"), folder / "filler"
        for room in (0, 4, 60, 130, 240):  # kB
            free = shutil.disk_usage(folder).free
            yield _try(
                f"a full file system with {room} kB left",
                run,
                functools.partial(filler.write_bytes, bytes(max(0, free - room * 1024))),
                filler.unlink,
                errno.ENOSPC,
            )
            shutil.rmtree(run.path)
            begin(run.path)
    finally:
        subprocess.run(["umount", folder], check=True)


def unwritable(folder: Path) -> Iterator[Tried]:
    """A folder that may not be written to, tried by a user who is not root."""
    run = begin(folder / "unwritable")
    folders = (run.checkpoints, run.path)
    for path in (folder, *folders, *run.checkpoints.iterdir(), run.detector):
        os.chown(path, NOBODY, NOBODY) if os.getuid() == 0 else None
        path.chmod(0o555 if path in folders else 0o755)
    result = folder / "result.txt"

    def as_nobody() -> None:
        if os.getuid() == 0:
            os.setuid(NOBODY)
        tried = _try("a folder without the right to write", run, lambda: None, lambda: None, errno.EACCES, again=False)
        sys.stdout.write("\n".join(tried))

    ended = forked.run(as_nobody, result)
    fault, outcome, broken = (*ended.said.split("\n"), "", "")[:3]
    yield Tried(fault, outcome, broken if ended.code == 0 else ended.said)
    for path in folders:
        path.chmod(0o755)


def whole_runs(folder: Path, count: int) -> Iterator[Tried]:
    """Training on a disk that fails for a while, by both settings."""
    folder.mkdir()
    counted = forked.run(functools.partial(_train_and_count, folder / "whole"), folder / "whole.txt")
    assert counted.code == 0, counted.said
    moments = int(counted.said.split()[-1])
    (whole,) = (folder / "whole" / "toy").iterdir()
    for index in range(count):
        on_failure = ("stop", "continue")[index % 2]
        runs = folder / f"{on_failure}{index}"
        first = moments // 5 + moments * index // (2 * count)  # of nine saves neither the first nor the last
        ended = forked.run(functools.partial(_train_on_failing_disk, runs, on_failure, first), folder / f"{index}.txt")
        said = re.findall(r"(?:error|warning): .*cannot be written: No space left on device.*", ended.said)
        (run,) = (RunFolder(path) for path in (runs / "toy").iterdir())
        code, broken = {"stop": 74, "continue": 0}[on_failure], ""
        if ended.code != code or not said:
            broken = f"exit code {ended.code} instead of {code}: {ended.said[-2000:]}"
        elif on_failure == "stop":
            again = forked.run(functools.partial(_train, runs, resume=str(run.path)), folder / "again.txt")
            broken = again.said if again.code else ""
        broken = broken or "; ".join(differences(left_by(run.path), left_by(whole))[:5])
        yield Tried(
            f"a run with checkpoint.on_failure={on_failure}, from moment {first} of {moments} on",
            f"code {ended.code}",
            broken,
        )


def _try(
    fault: str,
    run: RunFolder,
    begin_fault: Callable[[], object],
    end_fault: Callable[[], object],
    error: int,
    again: bool = True,
) -> Tried:
    outcome, broken = "saved all the same", ""
    begin_fault()
    try:
        save(run, NEW)
    except StorageError as said:
        outcome = str(said).replace(str(run.path), "RUN")
        if os.strerror(error) not in outcome or "RUN/" not in outcome:
            broken = f"the message names no file or reason: {outcome}"
    except OSError as said:  # pruning: the saver notes it, and speaks of the folder
        outcome = f"while removing an old one: {said.strerror}"
        if what_is_left(run)[0] != NEW:
            broken = "the new checkpoint is not there, and nobody said so"
    finally:
        end_fault()
    try:
        left = what_is_left(run)
        if outcome == "saved all the same" and left != (NEW, NEW):
            broken = f"nothing was said, and {left} are left"
        if again:
            start_again(run)
    except (AssertionError, DetkitError) as said:
        broken = str(said)
    return Tried(fault, outcome, broken)


def _raise(number: int, _: str) -> None:
    raise OSError(number, os.strerror(number))


def _train(runs: Path, **settings: Any) -> None:
    train(toy_parts(runs, checkpoint={"every_n_steps": 2}, **settings))


def _train_and_count(runs: Path) -> None:
    counting = AtNumber(-1, lambda _: None)
    with watched(lambda name: counting(name) if ".ckpt" in name else None):
        _train(runs)
    sys.stdout.write(f" {len(counting.names)}")


def _train_on_failing_disk(runs: Path, on_failure: str, first: int) -> None:
    parts = toy_parts(runs, checkpoint={"on_failure": on_failure, "every_n_steps": 2})
    failing = AtNumber(first, _fail_in_checkpoints, lasting=True)

    def moment(name: str) -> None:
        if ".ckpt" in name and len(failing.names) < first + LASTS:  # then there is room again
            failing(name)

    def program(_: list[str]) -> None:
        with watched(moment):
            train(parts)

    run_script(program)


def _fail_in_checkpoints(_: str) -> None:
    _raise(errno.ENOSPC, "")


def main(argv: list[str]) -> None:
    given = arguments.read(argv, places=64, runs=8)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        tried = []
        for group in (
            fail_at_places(folder, given["places"]),
            limit_of_size(folder, given["places"] // 4),
            full_tmpfs(folder / "mounted"),
            unwritable(folder),
            whole_runs(folder / "runs", given["runs"]),
        ):
            for result in group:
                tried.append(result)
                arguments.progress(len(tried), 0)
    arguments.show("disk faults in a save", [result[:2] for result in tried], ["fault", "what came of it"])
    broken = [f"{result.fault}: {result.broken}" for result in tried if result.broken]
    arguments.finish(broken, len(tried), "nothing lost, and said clearly")


if __name__ == "__main__":
    main(sys.argv[1:])
