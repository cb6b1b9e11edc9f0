"""The L1 term comes on in the last epochs, in a run that was never stopped and in a resumed one."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detkit.errors import RecipeError
from detkit.training.callbacks.late_l1 import LateL1


class Loss:
    def __init__(self) -> None:
        self.l1_weight = 0.0


class Module(L.LightningModule):
    """Records the weight of every batch."""

    def __init__(self, loss: object) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.loss = loss
        self.seen: list[tuple[int, float]] = []

    def training_step(self, batch: Tensor) -> Tensor:
        self.seen.append((self.current_epoch, self.loss.l1_weight))  # type: ignore[union-attr]
        return self.layer(batch).sum()

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(torch.ones(2, 1))  # type: ignore[arg-type]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveWithinEpoch(L.Callback):
    """A checkpoint after the first batch of epoch 1."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step == 3:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "within.ckpt")


def trainer(tmp_path: Path, *callbacks: L.Callback, **settings: int) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
        **settings,  # type: ignore[arg-type]
    )


def test_on_for_the_last_epochs(tmp_path: Path) -> None:
    module = Module(Loss())
    trainer(tmp_path, LateL1(last_epochs=2, weight=0.5), max_epochs=3).fit(module)
    assert module.seen == [(0, 0.0), (0, 0.0), (1, 0.5), (1, 0.5), (2, 0.5), (2, 0.5)]


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_a_run_resumed_within_an_epoch_has_it_too(tmp_path: Path) -> None:
    trainer(tmp_path, LateL1(last_epochs=1), SaveWithinEpoch(), max_epochs=2).fit(Module(Loss()))
    module = Module(Loss())
    resumed = trainer(tmp_path, LateL1(last_epochs=1), max_epochs=2)
    resumed.fit(module, ckpt_path=tmp_path / "within.ckpt", weights_only=True)
    assert module.seen == [(1, 1.0)]


def test_a_loss_without_the_term_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="ReLU has no l1_weight"):
        trainer(tmp_path, LateL1(), max_epochs=1).fit(Module(nn.ReLU()))


def test_a_run_without_an_end_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="max_epochs must be set; got -1"):
        trainer(tmp_path, LateL1(), max_epochs=-1, max_steps=2).fit(Module(Loss()))


@pytest.mark.parametrize("arguments", [{"last_epochs": -1}, {"weight": -1.0}], ids=str)
def test_negative_numbers_are_named(arguments: dict) -> None:
    with pytest.raises(ValueError, match="=-1"):
        LateL1(**arguments)
