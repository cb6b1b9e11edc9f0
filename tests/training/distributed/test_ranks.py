"""Two processes over gloo, started by torchrun and by Lightning itself, with one run folder between them."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

PROGRAM = """
import os
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from detkit.training import train
from tests.helpers.toy import ToyData, toy_parts
devices, batch_size = int(sys.argv[2]), int(sys.argv[3])
parts = toy_parts(
    Path(sys.argv[1]),
    data=ToyData(length=32, batch_size=batch_size),
    epochs=2,
    trainer={"devices": devices, "sync_batchnorm": True, "accelerator": "cpu"},
)
parts.model.body[4].p = 0.0  # each rank draws its own dropout
folder = train(parts).folder
Path(f"{sys.argv[1]}_rank{os.environ.get('LOCAL_RANK', 0)}.txt").write_text(str(folder))
"""


def run(program: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> str:
    done = subprocess.run(
        [sys.executable, *launcher, str(program), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(runs: Path) -> list[list[float]]:
    (folder,) = (runs / "toy").iterdir()
    with (folder / "metrics.csv").open() as file:
        return [[float(row[name]) for name in ("train/cls", "train/box", "val/AP50")] for row in csv.DictReader(file)]


@pytest.mark.long
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    run(program, str(tmp_path / "one"), "1", "8")
    run(program, str(tmp_path / "two"), "2", "4")
    said = run(program, str(tmp_path / "torchrun"), "2", "4", launcher=torchrun)
    (folder,) = (tmp_path / "torchrun" / "toy").iterdir()
    assert [(tmp_path / f"torchrun_rank{rank}.txt").read_text() for rank in (0, 1)] == [str(folder)] * 2
    one = losses(tmp_path / "one")
    for runs in ("two", "torchrun"):
        assert losses(tmp_path / runs) == [pytest.approx(row, rel=1e-4, abs=1e-5) for row in one]
    assert said.count("epoch 2/2  AP") == 1
