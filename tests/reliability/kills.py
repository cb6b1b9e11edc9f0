"""SIGKILL at random moments, and resume=true until the run is done: it must end as the run that nobody touched.

    python -m tests.reliability.kills kills=100 runs=10 seed=0

Every start is scripts/train.py in a fork of this process, which has imported torch and Lightning and trained nothing;
so a start costs less than a second. The workers are drawn anew at each start. A kill is aimed at a phase of the run, or
comes at any time; it takes the process alone, or with its workers.
"""

import collections
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import albumentations  # noqa: F401  (before the forks, so that none has to)
import torch
from rich.console import Console
from rich.progress import Progress

import detkit.training
import detkit.weights  # noqa: F401
from detkit.checkpoint import latest_checkpoint
from tests.reliability import arguments
from tests.reliability.left_behind import differences, left_by
from tests.reliability.small_run import Moments, folders_of, start, write_data

WORKERS = (0, 1, 2, 4)
ARGUMENTS = ("checkpoint.every_n_steps=4",)
PHASES = ("start", "resumed", "step", "save", "validation", "between", "end")
AIMS = ("any time", "any time", "step", "resumed", "save", "validation", "between", "end")
LONGEST_START_S = 120.0  # after which a start counts as hanging


class Killed(NamedTuple):
    """What a run came through."""

    starts: int
    kills: collections.Counter[str]  # by the phase in which they came
    failures: list[str]  # starts that ended by themselves, and not well
    differences: list[str]  # from the run that nobody touched
    seconds: float


class Phase:
    """The phase that a child is in, in memory that it shares with its parent."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def set(self, phase: str, _step: int = 0) -> None:
        self._memory[0] = PHASES.index(phase)

    def get(self) -> str:
        return PHASES[self._memory[0]]


def untouched(root: Path, runs: Path, model: str = "small") -> float:
    """A run from its start to its end; returns its seconds."""
    begun = time.perf_counter()
    process = _fork(root, runs, ["data.num_workers=0"], model, Phase())
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, "the run that nobody touched failed"
    return time.perf_counter() - begun


def kill_and_resume(
    root: Path, runs: Path, rng: random.Random, kills: int, seconds: float, model: str = "small"
) -> tuple[int, collections.Counter[str], list[str]]:
    """Start, kill and start again until so many kills have come, then until the run is done.

    Args:
        root: of the data.
        runs: folder for the run; empty.
        rng: draws workers, aims and delays.
        kills: at most; fewer if the run is done before.
        seconds: what a run without a kill takes.
        model: of small_run.MODELS.
    """
    starts, killed, failures, phase = 0, collections.Counter[str](), [], Phase()
    while True:
        starts += 1
        resume = ["resume=true"] if any(latest_checkpoint(run / "checkpoints") for run in folders_of(runs)) else []
        process = _fork(root, runs, [f"data.num_workers={rng.choice(WORKERS)}", *resume], model, phase)
        aim = rng.choice(AIMS) if killed.total() < kills else "never"
        delay = rng.uniform(0, seconds / 3) if aim == "any time" else rng.uniform(0, 0.03)
        code = _wait(process, aim, delay, phase, alone=rng.random() < 0.5)
        if code is None:
            killed[phase.get()] += 1
        elif code == 0:
            return starts, killed, failures
        else:
            failures.append(f"start {starts} {' '.join(resume)}: exit code {code}: {_last_words(runs)}")
            if len(failures) == 3:
                return starts, killed, failures


def try_runs(folder: Path, kills: int, runs: int, seed: int, console: Console, model: str = "small") -> list[Killed]:
    """So many runs, the kills dealt out to them."""
    root = write_data(folder / "data")
    seconds = untouched(root, folder / "untouched", model)
    (whole,) = folders_of(folder / "untouched")
    expected, rng, results = left_by(whole), random.Random(seed), []
    left = kills
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("kills", total=kills)
        while left > 0 or len(results) < runs:
            own, begun = folder / f"run{len(results)}", time.perf_counter()
            wanted = -(-left // max(1, runs - len(results)))
            starts, killed, failures = kill_and_resume(root, own, rng, wanted, seconds, model)
            last = [run for run in folders_of(own) if latest_checkpoint(run / "checkpoints")]
            wrong = differences(expected, left_by(last[-1])) if last else ["no checkpoint"]
            results.append(Killed(starts, killed, failures, wrong, time.perf_counter() - begun))
            left -= killed.total()
            progress.update(bar, completed=kills - left)
            shutil.rmtree(own)
            if failures:
                break
    return results


def _fork(root: Path, runs: Path, arguments: list[str], model: str, phase: Phase) -> int:
    """A child that trains, in a process group of its own; what it says goes to a file beside the runs."""
    phase.set("start")
    runs.parent.mkdir(parents=True, exist_ok=True)
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.setpgid(0, 0)
        log = os.open(runs.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        Moments.told = phase.set
        start(root, runs, *ARGUMENTS, *arguments, model=model)
        code = 0
    finally:
        if code:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            sys.stderr.flush()
        os._exit(code)


def _wait(process: int, aim: str, delay: float, phase: Phase, alone: bool) -> int | None:
    """The exit code; None if the child was killed, which happens ``delay`` seconds after its aim was reached."""
    reached = time.perf_counter() if aim == "any time" else None
    limit = time.perf_counter() + LONGEST_START_S
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        now = time.perf_counter()
        if reached is None and aim == phase.get():
            reached = now
        if reached is not None and now - reached >= delay:
            break
        if now > limit:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return -signal.SIGALRM  # it hung
        time.sleep(0.001)
    (os.kill if alone else os.killpg)(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return None if code == -signal.SIGKILL else code


def _last_words(runs: Path) -> str:
    lines = runs.with_suffix(".log").read_text().strip().splitlines()
    return lines[-1] if lines else ""


def main(argv: list[str]) -> None:
    """Print what was tried and what came out; 1 if a run was lost or ended otherwise."""
    given = {"kills": "100", "runs": "10", "seed": "0", "model": "small"}
    given |= dict(argument.split("=", 1) for argument in argv)
    torch.set_num_threads(1)
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        kills, runs, seed = (int(given[name]) for name in ("kills", "runs", "seed"))
        results = try_runs(Path(folder), kills, runs, seed, console, given["model"])
    console.print(table_of(results), soft_wrap=True, highlight=False)
    broken = [line for result in results for line in (*result.failures, *result.differences)]
    tried = sum(result.kills.total() for result in results)
    arguments.finish(broken, tried, "killed runs end as if nobody had touched them")


def table_of(results: list[Killed]) -> str:
    """Kills by phase, and what became of the runs."""
    kills = sum((result.kills for result in results), collections.Counter[str]())
    lines = [f"{'kills in':12} {'':>6}", *(f"{phase:12} {kills[phase]:6}" for phase in PHASES if kills[phase])]
    lines += [
        f"{'all':12} {kills.total():6}",
        f"runs {len(results)}, starts {sum(result.starts for result in results)}",
    ]
    lost = sum(bool(result.failures) for result in results)
    other = sum(bool(result.differences) for result in results)
    lines += [f"lost {lost}, not the same {other}, {sum(result.seconds for result in results):.0f} s"]
    lines += [f"  {line}" for result in results for line in (*result.failures, *result.differences[:3])]
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
