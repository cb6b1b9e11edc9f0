"""The recipes of other backbones, and one of RT-DETR, train on the demo set, from the command that a user types."""

import csv
from pathlib import Path

import pytest

from tests.helpers.warm_scripts import run_script

FEW_STEPS = [
    *("data.image_hw=[64,64]", "data.batch_size=32", "data.num_workers=0"),
    *("trainer.max_epochs=2", "trainer.limit_train_batches=4", "trainer.limit_val_batches=1"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "yolo_shufflenet",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("yolo_resnet18", "yolo_timm", "rtdetr_timm")),
    ],
)
def test_trains_two_epochs_on_the_demo_set(tmp_path: Path, name: str) -> None:
    command = ["scripts/train.py", f"recipe={name}", *FEW_STEPS, "wandb=disabled", f"runs_dir={tmp_path}"]
    done = run_script(command)
    assert done.returncode == 0, done.stderr[-3000:]
    [run] = (tmp_path / name).iterdir()
    with (run / "metrics.csv").open() as file:
        first, second = ({key: float(value) for key, value in row.items()} for row in csv.DictReader(file))
    assert second["train/loss"] < first["train/loss"]
    assert (run / "detector.safetensors").is_file()
