"""SIGTERM at all moments of a run: what it leaves, its exit code, and where it ends once it was resumed.

    python -m tests.reliability.signals [count=60] [script=2]

The promise: the step is finished and saved, the exit code is 143, and the resumed run ends with the
weights of the run that was never stopped. Before the first step there is nothing to save; a second
signal ends the run at once, with the checkpoint before. Runs are processes of their own, forked from this
one; ``script`` of them are scripts/train.py with data workers, and all its processes get the signal.
"""

import contextlib
import functools
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
from typing_extensions import override

from detkit.checkpoint import CheckpointManifest, latest_checkpoint
from detkit.errors import run_script
from detkit.training import train
from detkit.training.run import interrupt
from tests.helpers.toy import toy_parts
from tests.reliability import arguments, forked, small_run
from tests.reliability.disk import watched
from tests.reliability.left_behind import differences, left_by

PHASES = ("start", "step", "mid-epoch save", "validation", "between epochs", "second signal")
MOST = {"start": 4, "step": 18, "mid-epoch save": 6, "validation": 12, "between epochs": 3, "second signal": 18}
LIMIT_S = 60  # for a signal to come


class Stopped(NamedTuple):
    """A run that got a signal, and what came of it."""

    phase: str
    place: str  # the occurrence of the phase
    outcome: str
    broken: str


class Phase(L.Callback):
    """Says when a run comes to the n-th occurrence of a phase, and stays there until it has got its signals.

    Args:
        name: of the phase.
        occurrence: which one, from 1.
        pipe: where to say so.
    """

    def __init__(self, name: str, occurrence: int, pipe: int) -> None:
        self.name = name
        self.left = occurrence
        self.pipe = pipe

    def reached(self, name: str) -> None:
        """A phase begins."""
        self.left -= name == self.name
        if name == self.name and self.left == 0:
            _get_signal(self.pipe)
            if name == "second signal":
                _get_signal(self.pipe)

    def disk(self, moment: str) -> None:
        """Something touches the disk."""
        if moment.startswith("before fsync step-") and ".ckpt" in moment:
            self.reached("mid-epoch save")

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.reached("start")

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.reached("start")

    @override
    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.reached("start" if trainer.sanity_checking else "validation")

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.reached("step")
        self.reached("second signal")

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.reached("between epochs")


def stop_and_resume(folder: Path, count: int) -> Iterator[Stopped]:
    """Runs of the toy detector, each phase in turn, at random occurrences."""
    rng = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    whole = forked.run(functools.partial(_train, folder / "whole"), folder / "whole.txt")
    assert whole.code == 0, whole.said
    expected = left_by(_run_in(folder / "whole"))
    for index in range(count):
        phase, runs = PHASES[index % len(PHASES)], folder / str(index)
        occurrence = rng.randint(1, MOST[phase])
        program = functools.partial(_train_until_phase, runs, phase, occurrence)
        ended = _signalled(program, folder / "said.txt", os.kill, times=1 + (phase == "second signal"))
        outcome, broken = _what_came(phase, ended, _run_in(runs))
        if not broken:
            broken = _resumed(runs, expected, folder / "again.txt")
        yield Stopped(phase, str(occurrence), outcome, broken)


def stop_script(folder: Path, count: int) -> Iterator[Stopped]:
    """scripts/train.py with two data workers; the signal goes to all its processes, as clusters send it."""
    folder.mkdir(parents=True)
    root = small_run.write_data(folder / "data")
    start = functools.partial(small_run.start, root)
    workers = ("data.num_workers=2",)
    assert forked.run(lambda: start(folder / "whole", *workers), folder / "whole.txt").code == 0
    (whole,) = small_run.folders_of(folder / "whole")
    for index in range(count):
        runs, step = folder / str(index), 5 + 9 * index
        program = functools.partial(_script_until_step, functools.partial(start, runs, *workers), step)
        ended = _signalled(program, folder / "said.txt", os.killpg)
        (run,) = small_run.folders_of(runs)
        manifest = latest_checkpoint(run / "checkpoints")
        broken = (
            ""
            if ended.code == 143 and manifest and manifest.step > step
            else f"code {ended.code}, {manifest}: {ended.said}"
        )
        if not broken:
            again = forked.run(lambda runs=runs: start(runs, *workers, "resume=true"), folder / "again.txt")
            broken = again.said if again.code else _differs(left_by(run), left_by(whole))
        yield Stopped("scripts/train.py", f"step {step}", f"code {ended.code}, {_describe(manifest)}", broken)


def _signalled(
    program: Callable[[int], object], output: Path, send: Callable[[int, int], None], times: int = 1
) -> forked.Ended:
    """Run a program, and send SIGTERM as often as it says on its pipe that it waits for it."""
    there, said = os.pipe()
    process = forked.Forked(functools.partial(_with_pipe, program, there, said), output)
    os.close(said)
    with contextlib.closing(os.fdopen(there, "rb")):
        for _ in range(times):
            if select.select([there], [], [], 120)[0]:
                os.read(there, 1)
            with contextlib.suppress(ProcessLookupError):
                send(process.process, signal.SIGTERM)
        return process.wait()


def _get_signal(pipe: int) -> None:
    """In a run: say that it waits for a signal, until it has handled the first one; the second one raises."""
    handler: Any = signal.getsignal(signal.SIGTERM)
    is_first = not handler.__self__.number
    os.write(pipe, b".")
    deadline = time.monotonic() + LIMIT_S
    while not (is_first and handler.__self__.number):
        assert time.monotonic() < deadline, "no signal came"
        time.sleep(0.01)


def _with_pipe(program: Callable[[int], object], there: int, said: int) -> None:
    os.close(there)
    os.setpgrp()

    def main(_: list[str]) -> None:
        program(said)

    run_script(main)


def _train(runs: Path, *callbacks: L.Callback, **settings: Any) -> None:
    parts = toy_parts(runs, checkpoint={"every_n_steps": 2}, **settings)
    parts.trainer.keywords["callbacks"].extend(callbacks)
    train(parts)


def _train_until_phase(runs: Path, name: str, occurrence: int, pipe: int) -> None:
    phase = Phase(name, occurrence, pipe)
    if name == "second signal":
        interrupt.SAME_REQUEST_S = 0.0
    with watched(phase.disk):
        _train(runs, phase)


def _script_until_step(start: Callable[[], object], step: int, pipe: int) -> None:
    def told(moment: str, at: int) -> None:
        if (moment, at) == ("step", step):
            _get_signal(pipe)

    small_run.Moments.told = staticmethod(told)
    start()


def _what_came(phase: str, ended: forked.Ended, run: Path | None) -> tuple[str, str]:
    manifest = latest_checkpoint(run / "checkpoints") if run else None
    outcome = f"code {ended.code}, {_describe(manifest)}"
    if ended.code != 143:
        return outcome, f"exit code {ended.code}, not 143: {ended.said[-3000:]}"
    if phase == "start":
        return outcome, "a checkpoint before the first step" if manifest else ""
    if phase == "second signal":
        return outcome, "" if "stopped at once" in ended.said else f"did not stop at once: {ended.said[-3000:]}"
    if manifest is None or "stopped and saved" not in ended.said:
        return outcome, f"nothing was saved: {ended.said[-3000:]}"
    return outcome, ""


def _resumed(runs: Path, expected: dict[str, Any], output: Path) -> str:
    run = _run_in(runs)
    resume = str(run) if run and latest_checkpoint(run / "checkpoints") else None
    again = forked.run(functools.partial(_train, runs, resume=resume), output)
    if again.code:
        return f"could not be resumed: {again.said[-3000:]}"
    return _differs(left_by(_run_in(runs)), expected)


def _differs(left: dict[str, Any], expected: dict[str, Any]) -> str:
    """Lightning's total of validation batches counts the one again in which the run was stopped; nothing reads it."""
    found = differences(left, expected)
    return "; ".join([line for line in found if "val_loop.batch_progress.total" not in line][:5])


def _run_in(runs: Path) -> Any:
    """The last run; None if there is none."""
    return max((runs / "toy").glob("*"), default=None)


def _describe(manifest: CheckpointManifest | None) -> str:
    return f"step {manifest.step}" if manifest else "no checkpoint"


def main(argv: list[str]) -> None:
    given = arguments.read(argv, count=60, script=2)
    tried = []
    with tempfile.TemporaryDirectory() as folder:
        for results in (
            stop_and_resume(Path(folder, "toy"), given["count"]),
            stop_script(Path(folder, "script"), given["script"]) if given["script"] else iter(()),
        ):
            for result in results:
                tried.append(result)
                arguments.progress(len(tried), given["count"] + given["script"])
    arguments.show("SIGTERM", [result[:3] for result in tried], ["phase", "at", "what came of it"])
    broken = [f"{result.phase} {result.place}: {result.broken}" for result in tried if result.broken]
    arguments.finish(broken, len(tried), "saved, exit code 143, resumed to the same end")


if __name__ == "__main__":
    main(sys.argv[1:])
