"""A class of the user's own, in a file of the working directory, works in every command as the run says it."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.warm_scripts import Done, run_script

BACKBONE = """
from torch import nn

from detkit.types import FeatureSpec


class Mine(nn.Module):
    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.out_specs = [FeatureSpec(channels, stride) for stride in (8, 16, 32)]
        self.convs = nn.ModuleList(nn.Conv2d(3, channels, stride, stride) for stride in (8, 16, 32))

    def forward(self, images):
        return [conv(images) for conv in self.convs]
"""
OWN = ["model.backbone._target_=my_backbone.Mine", "model.backbone.channels=16"]
SMALL = [
    *("data.image_hw=[64,64]", "data.batch_size=4", "data.num_workers=0", "wandb=disabled", "trainer.accelerator=cpu"),
    *("trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=2"),
]


def detkit(folder: Path, *words: str) -> Done:
    done = run_script(["-m", "detkit", *words], cwd=folder)
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.mark.slow
def test_own_backbone_is_trained_evaluated_used_and_exported(tmp_path: Path) -> None:
    (tmp_path / "my_backbone.py").write_text(BACKBONE)
    said = detkit(tmp_path, "train", "recipe=yolo_csp_n", *OWN, *SMALL).stdout
    [line] = [line for line in said.splitlines() if line.startswith("evaluate: ")]
    command, *words = shlex.split(line.removeprefix("evaluate: "))
    assert command == "detkit" and words[-1] == "trusted=my_backbone"
    assert "AP" in detkit(tmp_path, *words, "data.num_workers=0").stdout

    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    [checkpoint] = [word for word in words if word.startswith("checkpoint=")]
    detkit(tmp_path, "predict", checkpoint, "trusted=my_backbone", "source=photo.png", "out=found")
    assert (tmp_path / "found" / "predictions.json").is_file()
    settings = ("limit=4", "data.num_workers=0", "allow_difference=true")
    detkit(tmp_path, "export", checkpoint, "trusted=my_backbone", "out=model.onnx", *settings)
    refused = run_script(["-m", "detkit", "predict", checkpoint, "source=photo.png"], cwd=tmp_path)
    assert refused.returncode == 78 and "my_backbone.Mine is in no trusted package" in refused.stderr
    predicted = detkit(tmp_path, "predict", "checkpoint=model.onnx", "source=photo.png", "out=found_by_export")
    assert "results: found_by_export" in predicted.stdout  # the exported file needs no class of the user's
