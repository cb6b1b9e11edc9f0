"""A rank of a training on two that dies or fails: how long until all are gone, what they say, what is left.

python -m tests.reliability.dead_rank count=FAULTS launchers=1

Ranks are forks of this process, which torchrun's environment tells who they are. With launchers=1 also real
starts by torchrun and by Lightning itself, at some 20 s each.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_only

from detkit.checkpoint import latest_checkpoint, read_checkpoint
from detkit.errors import DataError, DetkitError
from tests.helpers import ROOT
from tests.reliability import arguments, small_run
from tests.reliability.forked import Ended, Forked, environment

TWO_RANKS = (
    "trainer.devices=2",
    "data.batch_size=2",
    "data.num_workers=1",
    "trainer.max_epochs=3",
    "checkpoint.every_n_steps=1",
)
FIRST_STEP = 2  # by then there is a checkpoint
LIMIT_S = 60
HERE = "tests.reliability.dead_rank"


class Fault(NamedTuple):
    """What happens to which rank at which moment of the small run."""

    how: str  # kill, error (of the user's data) or bug
    rank: int
    moment: str  # step, validation or save


class Outcome(NamedTuple):
    """What came of it."""

    seconds: float  # from the fault to the end of the last process
    codes: list[int]  # of each rank, as a shell shows them; of a launcher: its own
    said: str
    left: int  # processes that outlived them by more than 15 s
    step: int  # of the last whole checkpoint; -1: none


FAULTS = [
    *(Fault("kill", rank, moment) for rank in (0, 1) for moment in ("step", "validation", "save")),
    *(Fault(how, rank, "step") for how in ("error", "bug") for rank in (0, 1)),
    Fault("error", 1, "validation"),
]


def train(fault: Fault, mark: Path, root: Path, runs: Path) -> None:
    """One rank, in this process; it leaves the time of its fault."""

    def told(moment: str, step: int) -> None:
        if int(os.environ.get("LOCAL_RANK", "0")) == fault.rank and moment == fault.moment and step >= FIRST_STEP:
            mark.write_text(str(time.time()))
            if fault.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise DataError("broken on purpose") if fault.how == "error" else ZeroDivisionError("broken on purpose")

    torch.set_num_threads(1)
    small_run.Moments.told = staticmethod(told)
    try:
        small_run.start(root, runs, *TWO_RANKS)
    except DetkitError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


def forked(fault: Fault, root: Path, folder: Path) -> Outcome:
    """Both ranks as forks."""
    ranks, mark = [], folder / "time"

    def program() -> None:
        os.setpgid(0, 0)
        # else it stays as it was when Lightning was imported
        rank_zero_only.rank = int(os.environ["RANK"])  # type: ignore[attr-defined]
        train(fault, mark, root, folder / "runs")

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    for rank in (0, 1):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
        names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
        with environment(**{name: str(value) for name, value in names.items()}):
            ranks.append(Forked(program, folder / f"{rank}.txt"))
    with _killed_after(LIMIT_S, mark, ranks):
        ended = [rank.wait() for rank in ranks]
    return _outcome(mark, folder, ended, [rank.process for rank in ranks])


def launched(launcher: tuple[str, ...], fault: Fault, root: Path, folder: Path) -> Outcome:
    """Both ranks as torchrun or Lightning starts them."""
    mark = folder / "time"
    with (folder / "out.txt").open("w") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                *launcher,
                "-m",
                HERE,
                *fault[:1],
                str(fault.rank),
                fault.moment,
                mark,
                root,
                folder / "runs",
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        try:
            code = process.wait(180)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
    ended = Ended(128 - code if code < 0 else code, (folder / "out.txt").read_text())
    return _outcome(mark, folder, [ended], [process.pid])


def broken(fault: Fault, outcome: Outcome) -> list[str]:
    """Promises that did not hold."""
    told = "it was killed" if fault.how == "kill" else "broken on purpose"
    promises = {
        f"all ranks end within a minute; it took {outcome.seconds:.0f} s": outcome.seconds < LIMIT_S,
        f"no exit code is 0; they are {outcome.codes}": 0 not in outcome.codes,
        f"no process is left; {outcome.left} are": outcome.left == 0,
        "the rank is named": f"rank {fault.rank} of 2 is gone: " in outcome.said and told in outcome.said,
        "it is said how to go on": "detkit train resume=" in outcome.said,
        f"the last checkpoint is whole; its step is {outcome.step}": outcome.step >= FIRST_STEP - 1,
    }
    return [f"{tuple(fault)}: {promise}" for promise, holds in promises.items() if not holds]


@contextlib.contextmanager
def _killed_after(seconds: float, mark: Path, ranks: list[Forked]) -> Iterator[None]:
    """A process that ends ranks that hang."""
    guard = os.fork()
    if not guard:
        while not mark.exists() or time.time() - mark.stat().st_mtime < seconds:
            time.sleep(1)
        for rank in ranks:
            with contextlib.suppress(ProcessLookupError):
                rank.kill(signal.SIGKILL)
        os._exit(0)
    try:
        yield
    finally:
        os.kill(guard, signal.SIGKILL)
        os.waitpid(guard, 0)


def _outcome(mark: Path, folder: Path, ended: list[Ended], groups: list[int]) -> Outcome:
    seconds = time.time() - float(mark.read_text()) if mark.exists() else float("inf")
    until = time.monotonic() + 15
    while (left := sum(map(_is_there, groups))) and time.monotonic() < until:
        time.sleep(0.1)
    runs = small_run.folders_of(folder / "runs")
    last = latest_checkpoint(runs[0] / "checkpoints") if runs else None
    step = read_checkpoint(last.path)["global_step"] if last else -1
    return Outcome(seconds, [end.code for end in ended], "\n".join(end.said for end in ended), left, step)


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    """Try all faults and print what came of them."""
    given = arguments.read(sys.argv[1:], count=len(FAULTS), launchers=0)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    trials = [("fork", None, fault) for fault in FAULTS[: given["count"]]]
    if given["launchers"]:
        trials += [("torchrun", torchrun, fault) for fault in FAULTS[:4]]
        trials += [("Lightning", (), fault) for fault in (*FAULTS[:4], *FAULTS[-3:])]
    rows, faults = [], []
    with tempfile.TemporaryDirectory() as name:
        root = small_run.write_data(Path(name) / "set")
        for number, (start, launcher, fault) in enumerate(trials):
            folder = Path(name) / str(number)
            folder.mkdir()
            outcome = forked(fault, root, folder) if launcher is None else launched(launcher, fault, root, folder)
            found = broken(fault, outcome)
            faults += [f"{start}, {line}\n{outcome.said[-3000:]}" for line in found]
            rows.append(
                (start, *fault, f"{outcome.seconds:.1f}", outcome.codes, outcome.step, "no" if found else "yes")
            )
            shutil.rmtree(folder)
            arguments.progress(number + 1, len(trials))
    arguments.show(
        "A rank of two ends", rows, ("started by", "fault", "rank", "at", "seconds", "exit codes", "last step", "kept")
    )
    arguments.finish(faults, len(trials), "all ranks end within a minute and say which is gone")


if __name__ == "__main__":
    if len(sys.argv) == 7:
        train(Fault(sys.argv[1], int(sys.argv[2]), sys.argv[3]), *map(Path, sys.argv[4:]))
    else:
        main()
