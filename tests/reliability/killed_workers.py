"""Data workers that are killed at random moments of a run: what it says, how soon it ends, what is left.

python -m tests.reliability.killed_workers count=20 seed=0
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from detkit.checkpoint import latest_checkpoint, read_checkpoint
from detkit.errors import DetkitError
from tests.reliability import arguments, small_run
from tests.reliability.forked import Ended, run

SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS)
MOMENTS = ("step", "validation", "save")
WORKERS = 2
LIMIT_S = 60  # only tells a run that hangs from one on a busy machine


class Outcome(NamedTuple):
    """What a run came to."""

    ended: Ended
    seconds: float  # from the kill to the end
    step: int  # of the last whole checkpoint; -1: none


def children() -> list[int]:
    """Processes that this one started."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def train(root: Path, folder: Path, number: int, moment: str, step: int, worker: int) -> Outcome:
    """A run of which a worker is killed from outside when it comes to a moment."""
    mark = folder / "killed"

    def told(name: str, at: int) -> None:
        if name == moment and at >= step and not mark.exists():
            mark.write_text(json.dumps(time.time()))
            os.kill(children()[worker], number)

    def program() -> None:
        torch.set_num_threads(1)
        small_run.Moments.told = staticmethod(told)
        settings = (f"data.num_workers={WORKERS}", "checkpoint.every_n_steps=1", "trainer.max_epochs=3")
        try:
            small_run.start(root, folder / "runs", *settings)
        except DetkitError as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(error.exit_code)

    ended = run(program, folder / "said.txt")
    seconds = time.time() - json.loads(mark.read_text())
    [of_run] = small_run.folders_of(folder / "runs")
    last = latest_checkpoint(of_run / "checkpoints")
    return Outcome(ended, seconds, read_checkpoint(last.path)["global_step"] if last else -1)


def broken(number: int, step: int, outcome: Outcome) -> list[str]:
    """Promises that did not hold."""
    name = signal.Signals(number).name
    promises = {
        f"the code is 65; it was {outcome.ended.code}": outcome.ended.code == 65,
        f"the run ends within {LIMIT_S} seconds; it took {outcome.seconds:.0f}": outcome.seconds < LIMIT_S,
        f"{name} and the worker are named": f" of {WORKERS} (process " in outcome.ended.said
        and f"was killed by {name} " in outcome.ended.said,
        "no traceback": "Traceback" not in outcome.ended.said,
        f"the last checkpoint is whole and no older than the step before; it is {outcome.step}": outcome.step
        >= step - 1,
    }
    return [promise for promise, holds in promises.items() if not holds]


def main() -> None:
    """Kill workers and print what came of it."""
    given = arguments.read(sys.argv[1:], count=9, seed=0)
    rng = random.Random(given["seed"])
    rows, faults = [], []
    with tempfile.TemporaryDirectory() as name:
        root = small_run.write_data(Path(name) / "set")
        for trial in range(given["count"]):
            folder = Path(name) / str(trial)
            folder.mkdir()
            number, moment = SIGNALS[trial % 3], MOMENTS[trial // 3 % 3]
            step, worker = rng.randint(1, small_run.STEPS_PER_EPOCH), rng.randrange(2 * WORKERS)
            outcome = train(root, folder, number, moment, step, worker)
            found = broken(number, step, outcome)
            faults += [
                f"{signal.Signals(number).name} at {moment} {step}: {line}\n{outcome.ended.said}" for line in found
            ]
            at = "image" if " at image " in outcome.ended.said else "idle"
            row = (
                signal.Signals(number).name,
                moment,
                step,
                at,
                f"{outcome.seconds:.1f}",
                outcome.ended.code,
                outcome.step,
            )
            rows.append(row)
            arguments.progress(trial + 1, given["count"])
    arguments.show("A data worker is killed", rows, ("signal", "at", "step", "it was", "seconds", "code", "last step"))
    arguments.finish(faults, len(rows), "named, and over within seconds")


if __name__ == "__main__":
    main()
