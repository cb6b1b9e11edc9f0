"""Means of the loss terms and images per second, over an epoch and all ranks."""

import time
from collections.abc import Mapping

import lightning as L
import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, distributed
from typing_extensions import override

from detkit.checkpoint import CheckpointState
from detkit.ops.ranks import of_all_ranks
from detkit.training.run.logged_steps import is_logged
from detkit.types import Batch


class TrainMeter(L.Callback):
    """Loss terms and speed of the training batches of an epoch. No method waits for the device, except at its end.

    Attributes:
        terms: loss terms of the last batch, on the device.
        means: means of the loss terms over all images of all ranks, set at the last batch of the epoch. Batches with a
            term that is not finite are left out.
    """

    def __init__(self) -> None:
        self.terms: dict[str, Tensor] = {}
        self.means: dict[str, float] = {}
        self._sums: Tensor | None = None  # sums of the terms over the images, then the number of images
        self._images = 0  # of this process in this epoch, for the speed
        self._batches = 0
        self._seconds = 0.0
        self._last = 0.0
        self._world_size = 1

    @property
    def images_per_s(self) -> float:
        """Speed of training without validation, over all ranks."""
        return self._images * self._world_size / self._seconds if self._seconds else 0.0

    @property
    def seconds_per_batch(self) -> float:
        """Mean time of a batch on this rank, without validation."""
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
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        assert isinstance(outputs, Mapping), "training_step returns a TrainingOutput"
        self.terms = outputs["terms"]
        terms = torch.stack((*self.terms.values(), torch.ones_like(outputs["loss"]))).float()
        summed = (terms * len(batch.images)).masked_fill(~terms.isfinite().all(), 0.0)
        self._sums = summed if self._sums is None else self._sums.to(summed.device) + summed
        now = time.perf_counter()
        self._images, self._batches = self._images + len(batch.images), self._batches + 1
        self._seconds, self._last = self._seconds + now - self._last, now
        if trainer.loggers and is_logged(trainer, trainer.global_step):
            # A tensor, because Lightning copies a Python number to the device and waits for the copy.
            pl_module.log("train/images_per_s", torch.tensor(self.images_per_s))
        if trainer.is_last_batch:
            self._average(trainer)

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last = time.perf_counter()

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.means:  # the run ends within an epoch, or was resumed in its validation
            self._average(trainer)

    def _average(self, trainer: L.Trainer) -> None:
        if self._sums is None:
            return
        own = self._sums.to(trainer.strategy.root_device, copy=True)  # sums from a checkpoint are on the CPU
        *sums, images = trainer.strategy.reduce(own, reduce_op="sum").tolist()
        self.means = {name: value / max(images, 1) for name, value in zip(self.terms, sums, strict=True)}
        self.means["loss"] = sum(self.means.values())

    @override
    def state_dict(self) -> CheckpointState:
        """The sums without time and speed, so that a resumed run has the same state as an uninterrupted one."""
        own = None if self._sums is None else self._sums.tolist()
        return {"names": list(self.terms), "sums_of_ranks": of_all_ranks(own)}

    @override
    def load_state_dict(self, state_dict: CheckpointState) -> None:
        is_distributed = distributed.is_available() and distributed.is_initialized()
        rank, ranks = (distributed.get_rank(), distributed.get_world_size()) if is_distributed else (0, 1)
        names = state_dict["names"]
        sums = state_dict.get("sums_of_ranks") or [state_dict["sums"]]  # older files have the sums of rank 0 only
        if sums[0] is not None:
            zeros = [0.0] * (len(names) + 1)  # if there are more ranks than before
            self._sums = torch.tensor(sums[rank::ranks] or [zeros]).sum(0)
        self.terms = dict.fromkeys(names, torch.tensor(0.0))
