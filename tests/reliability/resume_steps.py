"""Resume a run at every step: whatever was on disk at that moment must lead to the same end, bit for bit.

    python -m tests.reliability.resume_steps                     every step, every variant, workers 0 and 2
    python -m tests.reliability.resume_steps steps=7 variants=plain model=yolo_csp_n

While a run goes on without a stop, its folder is copied at the beginning of each step, validation and save, and at the
end: that is what a kill at these moments leaves. Each copy is then resumed to the end.
"""

import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track

from tests.reliability.left_behind import differences, left_by
from tests.reliability.small_run import Moments, folders_of, start, write_data

EVERY_STEP = ("checkpoint.every_n_steps=1",)
VARIANTS = {
    "plain": EVERY_STEP,
    "accumulated": (*EVERY_STEP, "trainer.accumulate_grad_batches=4"),  # 6 batches: 4 + 2
    "validated within epochs": (*EVERY_STEP, "trainer.val_check_interval=2"),
    "validated every second epoch": (*EVERY_STEP, "trainer.check_val_every_n_epoch=2"),
    "not validated": (*EVERY_STEP, "trainer.limit_val_batches=0"),
    "max_steps": (*EVERY_STEP, "trainer.max_steps=27"),
    "frozen at first": (*EVERY_STEP, "freeze=backbone", "unfreeze_epoch=2"),
    "adamw": (*EVERY_STEP, "optimizer=torch.optim.AdamW", "optimizer.lr=0.01"),
    "saved every 4 steps": ("checkpoint.every_n_steps=4",),
    "saved by epoch": (),
}


class Resumed(NamedTuple):
    """What came of one resume."""

    variant: str
    moment: str
    step: int
    workers: int
    differences: list[str]


def snapshots(root: Path, runs: Path, kept: Path, arguments: tuple[str, ...], model: str) -> list[tuple[str, int]]:
    """Run without a stop into ``runs``; copies of its folder at each moment go to ``kept``."""
    taken: dict[tuple[str, int], None] = {}

    def take(moment: str, step: int) -> None:
        (folder,) = folders_of(runs)
        if moment != "resumed" and any((folder / "checkpoints").glob("*.json")):
            shutil.rmtree(kept / f"{moment}-{step}", ignore_errors=True)
            shutil.copytree(folder, kept / f"{moment}-{step}")
            taken[moment, step] = None

    Moments.told = take
    try:
        start(root, runs, "data.num_workers=0", *arguments, model=model)
    finally:
        Moments.told = None
    return list(taken)


def resume_all(
    folder: Path,
    variant: str,
    *,
    steps: set[int] | None = None,
    workers: tuple[int, ...] = (0, 2),
    model: str = "small",
) -> Iterator[Resumed]:
    """Resume one variant at every moment, or those of some steps.

    Args:
        folder: to work in; has to be empty.
        variant: of VARIANTS.
        steps: None: all.
        workers: of the loaders of the resumed runs; that of the run without a stop has none.
        model: of MODELS.
    """
    root, runs, kept = write_data(folder / "data"), folder / "runs", folder / "kept"
    moments = snapshots(root, runs, kept, VARIANTS[variant], model)
    (whole,) = folders_of(runs)
    expected = left_by(whole)
    assert expected["step"][0] > 0, "the run without a stop left a checkpoint"
    for moment, step in moments:
        for number in workers if steps is None or step in steps else ():
            copy = runs / whole.parent.name / f"{moment}-{step}-{number}"
            shutil.copytree(kept / f"{moment}-{step}", copy)
            start(root, runs, f"resume={copy}", f"data.num_workers={number}", *VARIANTS[variant], model=model)
            yield Resumed(variant, moment, step, number, differences(expected, left_by(copy)))
            shutil.rmtree(copy)


def main(argv: list[str]) -> int:
    """Print a row for each variant; 1 if one resume ended otherwise."""
    given: dict[str, Any] = dict(argument.split("=", 1) for argument in argv)
    steps = {int(step) for step in given["steps"].split(",")} if "steps" in given else None
    variants = given["variants"].split(",") if "variants" in given else list(VARIANTS)
    torch.set_num_threads(1)
    for name in ("detkit", "lightning.pytorch"):  # what is odd in the data, at every start
        logging.getLogger(name).setLevel(logging.ERROR)
    console, failed = Console(), 0
    console.print(f"{'variant':30} {'resumed':>8} {'not the same':>13}")
    for variant in variants:
        with tempfile.TemporaryDirectory() as folder:
            results = resume_all(Path(folder), variant, steps=steps, model=given.get("model", "small"))
            done = list(track(results, description=variant, transient=True, console=console))
        wrong = [result for result in done if result.differences]
        failed += len(wrong)
        console.print(f"{variant:30} {len(done):8} {len(wrong):13}")
        for result in wrong:
            places = ", ".join(result.differences[:3])
            console.print(f"  {result.moment} {result.step}, {result.workers} workers: {places}", soft_wrap=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
