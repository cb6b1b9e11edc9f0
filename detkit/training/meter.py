"""Means of the loss terms and images per second, over an epoch and all ranks."""

import time
from typing import Any

import lightning as L
import torch
from torch import Tensor
from typing_extensions import override

from detkit.types import Batch


class TrainMeter(L.Callback):
    """What the training batches of this epoch gave so far. Nothing here waits for the device.

    Attributes:
        terms: of the last batch, on the device.
        means: of the whole epoch, each image of every rank weighing the same; there from its last
            batch on.
    """

    def __init__(self) -> None:
        self.terms: dict[str, Tensor] = {}
        self.means: dict[str, float] = {}
        self._sums: Tensor | None = None
        self._images = 0
        self._batches = 0
        self._seconds = 0.0
        self._last = 0.0
        self._world_size = 1

    @property
    def images_per_s(self) -> float:
        """Training alone, without validation, on all ranks together."""
        return self._images * self._world_size / self._seconds if self._seconds else 0.0

    @property
    def seconds_per_batch(self) -> float:
        """Of this rank, without validation."""
        return self._seconds / self._batches if self._batches else 0.0

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._world_size = trainer.world_size
        self._last = time.perf_counter()

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._sums, self._images, self._batches, self._seconds = None, 0, 0, 0.0
        self.means = {}
        self._last = time.perf_counter()

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self.terms = outputs["terms"]
        summed = torch.stack(tuple(self.terms.values())).float() * len(batch.targets)
        self._sums = summed if self._sums is None else self._sums.to(summed.device) + summed
        now = time.perf_counter()
        self._images, self._batches = self._images + len(batch.targets), self._batches + 1
        self._seconds, self._last = self._seconds + now - self._last, now
        if trainer.loggers:
            pl_module.log("train/images_per_s", self.images_per_s)
        if trainer.is_last_batch:
            self._average(trainer)

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last = time.perf_counter()

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.means:  # the run ends within an epoch, or went on from the validation of one
            self._average(trainer)

    def _average(self, trainer: L.Trainer) -> None:
        if self._sums is None:
            return
        totals = torch.cat((self._sums, self._sums.new_tensor([float(self._images)])))
        *sums, images = trainer.strategy.reduce(totals, reduce_op="sum").tolist()
        self.means = {name: value / images for name, value in zip(self.terms, sums, strict=True)}
        self.means["loss"] = sum(self.means.values())

    @override
    def state_dict(self) -> dict[str, Any]:
        sums = None if self._sums is None else self._sums.tolist()
        counts = {"images": self._images, "batches": self._batches, "seconds": self._seconds}
        return {"names": list(self.terms), "sums": sums, **counts}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        sums = state_dict["sums"]
        self._sums = None if sums is None else torch.tensor(sums)
        self._images, self._batches = state_dict["images"], state_dict["batches"]
        self._seconds = state_dict["seconds"]
        self.terms = dict.fromkeys(state_dict["names"], torch.tensor(0.0))
