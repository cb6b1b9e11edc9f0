"""A detector on two gloo processes: the losses of one process on the joined batch, and its AP."""

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from detkit.assign import HungarianAssigner
from detkit.data import make_demo
from detkit.losses import DETRLoss
from detkit.ops.targets import pack_targets
from tests.helpers import ROOT
from tests.helpers.detr_batches import IMAGE_HW, random_targets
from tests.helpers.small_rtdetr import small_rtdetr

ARGUMENTS = [
    *("wandb=disabled", "data.image_hw=[128,128]", "data.num_workers=0", "trainer.accelerator=cpu"),
    *("trainer.precision=64-true", "trainer.sync_batchnorm=true", "trainer.max_epochs=2"),
    "data.augmentation.close_mosaic_epochs=0",
    *("trainer.limit_train_batches=1", "trainer.callbacks=[]"),  # a step each epoch, validated by its own weights
]
YOLO = ["recipe=yolo_csp_n", "optimizer.lr=0.001"]  # as in the first steps of a warm-up
RTDETR = ["recipe=rtdetr_shufflenet", "weights=null", "model.head.num_queries=30", "data.multi_scale=null"]
# How many noisy queries an image gets depends on the other images of its rank, and every rank draws its own noise.
NO_NOISE = "model.head.num_denoising=0"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def train(runs: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> list[dict[str, float]]:
    """The rows of metrics.csv: the loss of each of the first two steps, and the AP after it."""
    done = subprocess.run(
        [sys.executable, *launcher, "scripts/train.py", *arguments, *ARGUMENTS, f"runs_dir={runs}"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (runs / arguments[0].removeprefix("recipe=")).iterdir()
    with (folder / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def demo_with_31_to_validate(folder: Path) -> Path:
    """An odd number: one rank has an image more than the other, and none may be counted twice."""
    path = make_demo(folder) / "annotations" / "instances_val.json"
    val = json.loads(path.read_text())
    val["images"] = val["images"][:31]
    kept = {image["id"] for image in val["images"]}
    val["annotations"] = [annotation for annotation in val["annotations"] if annotation["image_id"] in kept]
    path.write_text(json.dumps(val))
    return folder


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "launcher", "terms"),
    [
        pytest.param(YOLO, TORCHRUN, {"cls", "box", "dfl"}, marks=pytest.mark.kernels),
        ([*RTDETR, NO_NOISE], (), {"cls", "l1", "giou", "cls_aux_0", "l1_enc", "giou_dn_0"}),
    ],
    ids=["yolo", "rtdetr"],
)
def test_two_processes_equal_one_on_the_joined_batch(
    tmp_path: Path, arguments: list[str], launcher: tuple[str, ...], terms: set[str]
) -> None:
    """In float64: there the order of sums changes no decimal of the file, and no order of scores."""
    root = f"data.root={demo_with_31_to_validate(tmp_path / 'demo')}"
    one = train(tmp_path / "one", *arguments, root, "data.batch_size=8")
    assert {f"train/{term}" for term in terms} <= one[0].keys()
    two = train(tmp_path / "two", *arguments, root, "data.batch_size=4", "trainer.devices=2", launcher=launcher)
    for ours, expected in zip(two, one, strict=True):
        for name, value in expected.items():
            assert ours[name] == pytest.approx(value, rel=3e-7, abs=1.1e-6), name  # means are float32


def _train_unevenly(rank: int, folder: str) -> None:
    """With objects on both ranks, on either one, on none; each draws noise of its own."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", world_size=2, rank=rank)
    torch.set_num_threads(1)
    model = DistributedDataParallel(small_rtdetr(num_denoising=10))
    loss = DETRLoss(HungarianAssigner())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rng = torch.Generator().manual_seed(rank)
    torch.manual_seed(rank)
    steps = []
    for counts in [((3, 1), (1, 2)), ((2, 0), (0, 0)), ((0, 0), (4, 1)), ((0, 0), (0, 0)), ((1, 1), (0, 2))]:
        targets = pack_targets(random_targets(counts[rank], rng))
        terms = loss(model(torch.rand(2, 3, *IMAGE_HW, generator=rng), targets), targets)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        steps.append({name: value.item() for name, value in terms.items()})
    torch.save((steps, model.module.state_dict()), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_rank_without_objects_trains_on_with_the_others(tmp_path: Path) -> None:
    """No rank waits for a gradient that another one does not have, and all keep the same weights."""
    spawn(_train_unevenly, args=(str(tmp_path),), nprocs=2)
    (steps_0, weights_0), (steps_1, weights_1) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for ours, theirs in zip(steps_0, steps_1, strict=True):
        assert list(ours) == list(theirs)
        assert all(math.isfinite(value) for value in (*ours.values(), *theirs.values()))
    has_noise = [[step["cls_dn_0"] > 0 for step in steps] for steps in (steps_0, steps_1)]
    assert has_noise == [[True, True, False, False, True], [True, False, True, False, True]]
    start = small_rtdetr(num_denoising=10).state_dict()
    for name, value in weights_0.items():
        if "running" in name or "num_batches" in name:
            continue  # each rank's own between two steps
        assert torch.equal(value, weights_1[name]), name
        assert "preprocess" in name or not torch.equal(value, start[name]), name
