"""Images that disappear, are cut or change their size after the first epoch: what the run makes of it.

python -m tests.reliability.lost_images

Each kind with 0 and with 2 workers: the weights must be the same to the last bit, and other ones than without a fault.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from detkit.errors import DetkitError
from tests.reliability import arguments, small_run
from tests.reliability.forked import Ended, run
from tests.reliability.left_behind import differences, left_by

LOST = (3, 4, 9, 24)  # rows of training images; two in a row, and the last


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 30)


def change(path: Path) -> None:
    cv2.imwrite(str(path), np.zeros((90, 90, 3), np.uint8))


FAULTS: dict[str, Callable[[Path], object]] = {"deleted": Path.unlink, "cut": cut, "changed in size": change}


class Outcome(NamedTuple):
    """What a run came to."""

    ended: Ended
    left: dict[str, Any]
    replaced: list[str]  # names of files, in the order of metrics.jsonl


def train(root: Path, folder: Path, fault: Callable[[Path], object], files: list[str], *settings: str) -> Outcome:
    """A run on a copy of the data, at the same place for all; the fault comes with the end of the first epoch."""
    data = root.parent / "data"
    shutil.rmtree(data, ignore_errors=True)
    shutil.copytree(root, data)

    def told(moment: str, step: int) -> None:
        if moment == "between" and step == small_run.STEPS_PER_EPOCH:
            for file in files:
                fault(data / file)

    def program() -> None:
        torch.set_num_threads(1)
        small_run.Moments.told = staticmethod(told)
        try:
            small_run.start(data, folder / "runs", "trainer.max_epochs=3", *settings)
        except DetkitError as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(error.exit_code)

    ended = run(program, folder / "said.txt")
    [of_run] = small_run.folders_of(folder / "runs")
    rows = [json.loads(line) for line in (of_run / "metrics.jsonl").read_text().splitlines()]
    replaced = [Path(row["file"]).name for row in rows if row.get("event") == "image_replaced"]
    return Outcome(ended, left_by(of_run), replaced)


def without_a_fault(root: Path, folder: Path) -> Outcome:
    """The run that nothing happens to."""
    return train(root, folder, lambda _: None, [], "data.num_workers=0")


def try_kind(kind: str, root: Path, folder: Path, whole: Outcome) -> tuple[list[Outcome], list[str]]:
    """The same fault with 0 and with 2 workers, and the promises that did not hold."""
    outcomes = []
    for workers in (0, 2):
        inner = folder / f"{kind} {workers}"
        inner.mkdir()
        files = [f"train/{row}.png" for row in LOST]
        outcomes.append(train(root, inner, FAULTS[kind], files, f"data.num_workers={workers}"))
    first, second = outcomes
    promises = {
        f"runs end well; the codes are {[outcome.ended.code for outcome in outcomes]}": not any(
            outcome.ended.code for outcome in outcomes
        ),
        "the number of workers changes nothing": not differences(first.left, second.left),
        "the fault changes something": bool(differences(first.left["weights"], whole.left["weights"])),
        f"each image is reported once; it was {first.replaced}": sorted(first.replaced)
        == sorted(second.replaced)
        == sorted(f"{row}.png" for row in LOST),
    }
    return outcomes, [f"{kind}: {promise}" for promise, holds in promises.items() if not holds]


def try_end(what: str, root: Path, folder: Path) -> tuple[Outcome, list[str]]:
    """A fault that ends the run with 65 and the names of the files; what was saved stays."""
    inner = folder / what
    inner.mkdir()
    if what == "more than the limit":
        files, named = [f"train/{row}.png" for row in LOST], "data.max_unreadable=2"
    else:
        files, named = ["val/3.png"], "a validation image"
    outcome = train(root, inner, Path.unlink, files, "data.max_unreadable=2", "data.num_workers=2")
    promises = {
        f"the code is 65; it was {outcome.ended.code}": outcome.ended.code == 65,
        "the file and the reason are said": named in outcome.ended.said and "No such file" in outcome.ended.said,
        "no traceback": "Traceback" not in outcome.ended.said,
        "the epoch before is saved": outcome.left["step"][0] == small_run.STEPS_PER_EPOCH,
    }
    return outcome, [f"{what}: {promise}" for promise, holds in promises.items() if not holds]


ENDS = ("more than the limit", "a validation image")


def main() -> None:
    """Try all and print what came of it."""
    arguments.read(sys.argv[1:])
    rows, broken = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = small_run.write_data(folder / "set")
        whole = without_a_fault(root, folder)
        for number, kind in enumerate(FAULTS):
            outcomes, found = try_kind(kind, root, folder, whole)
            same = "no" if differences(outcomes[0].left, outcomes[1].left) else "yes"
            rows.append((kind, [outcome.ended.code for outcome in outcomes], len(outcomes[0].replaced), same))
            broken += found
            arguments.progress(number + 1, len(FAULTS) + len(ENDS))
        for number, what in enumerate(ENDS, start=len(FAULTS)):
            outcome, found = try_end(what, root, folder)
            rows.append((what, [outcome.ended.code], len(outcome.replaced), "-"))
            broken += found
            arguments.progress(number + 1, len(FAULTS) + len(ENDS))
    headings = ("four images, after the first epoch", "exit codes", "replaced", "same weights with 0 and 2 workers")
    arguments.show("Images that are lost while training runs", rows, headings)
    arguments.finish(broken, len(rows), "replaced alike, counted, and stopped past the limit")


if __name__ == "__main__":
    main()
