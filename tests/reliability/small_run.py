"""A run of scripts/train.py that has all that a large one has, and takes seconds."""

import contextlib
import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor, nn
from typing_extensions import override

from detkit.commands.train import main
from detkit.layers.conv import ConvNormAct
from detkit.models.necks import PAN
from detkit.types import FeatureSpec
from tests.helpers.small_set import write_split

EPOCHS, STEPS_PER_EPOCH = 5, 6
HERE = "tests.reliability.small_run"

# What a resume could forget: order, mosaic, mixup, sizes, dropout, statistics, average, moments, schedule.
SETTINGS = (
    "recipe=yolo_csp_n",
    "wandb=disabled",
    "data.image_hw=[64,64]",
    "data.batch_size=4",
    "data.val_batch_size=3",
    "data.augmentation.mixup_probability=0.3",
    "data.augmentation.close_mosaic_epochs=2",
    "data.multi_scale=[0.5,1.5]",
    "scheduler.warmup_epochs=1",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
    "trainer.precision=32-true",
    "trainer.enable_progress_bar=false",
    f"trainer.max_epochs={EPOCHS}",
    f"trainer.callbacks=[{{_target_: detkit.training.EMA, decay: 0.9, ramp_steps: 5}}, {{_target_: {HERE}.Moments}}]",
)
# The shrunk network of the recipe has a thousand tensors to save, this one a hundred.
MODELS = {
    "yolo_csp_n": (f"model.neck._target_={HERE}.DroppingPAN", "model.backbone.width_multiple=0.125"),
    "small": (
        f"model.backbone._target_={HERE}.SmallBackbone",
        f"model.neck._target_={HERE}.DroppingNeck",
        "model.head.channels=8",
        "model.head.depth=1",
        "model.head.num_bins=4",
    ),
}


class SmallBackbone(nn.Module):
    """Five convolutions with batch norm."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        widths = (3, 4, channels, channels, channels, channels)
        self.layers = nn.ModuleList(ConvNormAct(*pair, 3, stride=2) for pair in itertools.pairwise(widths))
        self.out_specs = [FeatureSpec(channels, stride) for stride in (8, 16, 32)]

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [images]
        for layer in self.layers:
            features.append(layer(features[-1]))
        return features[-3:]


class DroppingNeck(nn.Module):
    """Only dropout, whose random numbers no sampler makes."""

    def __init__(self, in_specs: list[FeatureSpec]) -> None:
        super().__init__()
        self.out_specs = in_specs

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [nn.functional.dropout(feature, 0.1, self.training) for feature in features]


class DroppingPAN(PAN):
    """The same in the recipe's neck."""

    @override
    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [nn.functional.dropout(feature, 0.1, self.training) for feature in super().forward(features)]


class Moments(L.Callback):
    """Tells what a run is about to do; ``told`` is set from outside, so that the recipe stays the same."""

    told: Callable[[str, int], None] | None = None

    def tell(self, moment: str, step: int) -> None:
        if Moments.told is not None:
            Moments.told(moment, step)

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.tell("resumed", trainer.global_step)

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.tell("step", trainer.global_step)

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.tell("validation", trainer.global_step)

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.tell("between", trainer.global_step)

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.tell("save", trainer.global_step)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.tell("end", trainer.global_step)


def write_data(root: Path) -> Path:
    """Drawn rectangles: six batches and one image to train on, three batches, the last one smaller, to validate."""
    write_split(root, "train", 4 * STEPS_PER_EPOCH + 1)
    write_split(root, "val", 8)
    return root


def start(root: Path, runs: Path, *arguments: str, model: str = "small") -> str:
    """What ``python scripts/train.py`` does with these arguments, in this process; returns what it says."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        main([*SETTINGS, *MODELS[model], f"data.root={root}", f"runs_dir={runs}", *arguments])
    return said.getvalue()


def folders_of(runs: Path) -> list[Path]:
    """Of all runs, the oldest first."""
    return sorted(runs.glob("*/*/"))
