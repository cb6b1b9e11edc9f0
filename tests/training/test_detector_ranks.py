"""A YOLO on two gloo processes: the losses of one process on the joined batch, and its AP."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from detkit.data import make_demo

ROOT = Path(__file__).parents[2]
ARGUMENTS = [
    *(
        "recipe=yolo_csp_n",
        "wandb=disabled",
        "data.image_hw=[128,128]",
        "data.num_workers=0",
        "trainer.accelerator=cpu",
    ),
    *("trainer.precision=32-true", "trainer.sync_batchnorm=true", "trainer.max_epochs=2", "data.close_mosaic_epochs=0"),
    *("trainer.limit_train_batches=1", "trainer.callbacks=[]"),  # a step each epoch, validated by its own weights
    "optimizer.lr=0.001",  # as in the first steps of a warm-up
]


def train(runs: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> list[dict[str, float]]:
    """The rows of metrics.csv: the loss of each of the first two steps, and the AP after it."""
    done = subprocess.run(
        [sys.executable, *launcher, "scripts/train.py", *ARGUMENTS, f"runs_dir={runs}", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (runs / "yolo_csp_n").iterdir()
    with (folder / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_two_processes_equal_one_on_the_joined_batch(tmp_path: Path) -> None:
    root = f"data.root={make_demo(tmp_path / 'demo')}"
    one = train(tmp_path / "one", root, "data.batch_size=8")
    two = train(tmp_path / "two", root, "data.batch_size=4", "trainer.devices=2")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    started = train(tmp_path / "torchrun", root, "data.batch_size=4", "trainer.devices=2", launcher=torchrun)
    for rows in (two, started):
        for ours, expected in zip(rows, one, strict=True):
            for name in ("train/cls", "train/box", "train/dfl", "train/loss"):
                assert ours[name] == pytest.approx(expected[name], rel=1e-5)
            for name in (name for name in expected if name.startswith("val/")):
                assert ours[name] == pytest.approx(expected[name], abs=1e-4)
