"""Unfreezing on two gloo processes: every gradient is averaged, before and after."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.helpers import ROOT
from tests.helpers.run_folders import assert_same, copy_of_step

STEPS = 4  # of an epoch
PROGRAM = """
import functools
import gc
import sys
from pathlib import Path
import lightning as L
import torch
from torch.nn.parallel import DistributedDataParallel
torch.set_num_threads(1)
from detkit.training import train
from tests.training.optim.staged import with_backbone
from tests.helpers.toy import ToyData, toy_parts

class Keep(L.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        path = f"{sys.argv[1]}_rank{trainer.global_rank}_step{trainer.global_step}.pt"
        torch.save(pl_module.model.state_dict(), path)
        wrappers = sum(isinstance(thing, DistributedDataParallel) for thing in gc.get_objects())
        assert wrappers == trainer.world_size - 1, wrappers  # those of before are gone, with their buckets

runs, devices, batch_size, resume = Path(sys.argv[1]), *map(int, sys.argv[2:])
parts = toy_parts(
    runs,
    data=ToyData(length=32, batch_size=batch_size),
    epochs=3,
    resume=bool(resume) or None,
    freeze=1,
    unfreeze_epoch=1,
    layer_decay=0.5,
    checkpoint={"every_n_steps": 1, "keep": 100},
    trainer={"devices": devices, "sync_batchnorm": True, "accelerator": "cpu", "callbacks": [Keep()]},
)
sgd = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)  # no step is divided by a small gradient
train(with_backbone(parts._replace(optimizer=sgd)))
"""


def run(program: Path, runs: Path, devices: int, batch_size: int, resume: bool = False) -> None:
    arguments = [str(runs), str(devices), str(batch_size), str(int(resume))]
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def weights(runs: Path, rank: int, step: int) -> dict[str, Tensor]:
    return torch.load(f"{runs}_rank{rank}_step{step}.pt", weights_only=True)


@pytest.mark.long
def test_two_processes_unfreeze_as_one(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    one, two = tmp_path / "one", tmp_path / "two"
    run(program, one, devices=1, batch_size=8)
    run(program, two, devices=2, batch_size=4)
    for step in range(1, 3 * STEPS + 1):
        expected, first, second = weights(one, 0, step), weights(two, 0, step), weights(two, 1, step)
        for name, tensor in expected.items():
            assert torch.equal(first[name], second[name]), f"{name} after step {step}"
            torch.testing.assert_close(first[name], tensor, rtol=1e-4, atol=1e-5)
    still, moved = weights(two, 0, STEPS), weights(two, 0, STEPS + 1)
    name = "backbone.conv1.weight"
    assert torch.equal(weights(two, 0, 1)[name], still[name]) and not torch.equal(still[name], moved[name])

    [folder] = (two / "toy").iterdir()
    resumed = tmp_path / "resumed"
    copy_of_step(folder, resumed, STEPS + 2)
    run(program, resumed, devices=2, batch_size=4, resume=True)
    for rank in (0, 1):
        assert_same(dict(weights(resumed, rank, 3 * STEPS)), dict(weights(two, rank, 3 * STEPS)))
