"""Exponential moving average of the weights, which is evaluated and saved as the detector."""

import math

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from typing_extensions import override


class EMA(WeightAveraging):
    """Average of weights and running statistics with a decay that rises from 0.

    Validation, the detector file and the model after training have the averaged weights. Lightning calls checkpoint
    callbacks after all others, so a checkpoint has the average of its own step.

    Args:
        decay: final decay.
        ramp_steps: the decay of step t is ``decay * (1 - exp(-t / ramp_steps))``; 0: constant decay.

    Raises:
        ValueError: if decay is not in [0, 1), or ramp_steps is negative.

    Source: Ge et al., YOLOX, 2021 (its code; the paper names EMA only). https://arxiv.org/abs/2107.08430
    """

    def __init__(self, decay: float = 0.9998, ramp_steps: int = 2000) -> None:
        if not 0 <= decay < 1 or ramp_steps < 0:
            raise ValueError(
                f"decay must lie in [0, 1) and ramp_steps not below 0; got decay={decay}, ramp_steps={ramp_steps}"
            )
        super().__init__(use_buffers=True)
        self.decay = decay
        self.ramp_steps = ramp_steps
        self._pairs: _TensorPairs | None = None
        self._swapped = False

    @property
    def module(self) -> nn.Module:
        """The averaged module; during validation the trained module, because Lightning swaps them."""
        assert self._average_model is not None, "setup makes the average"
        return self._average_model.module

    def decay_of(self, step: int) -> float:
        """The decay after ``step`` optimizer steps."""
        return self.decay * (1 - math.exp(-step / self.ramp_steps)) if self.ramp_steps else self.decay

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Make the average on the device of the training; Lightning moves the model later."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Pair the tensors, after Lightning has set device and memory format of the model."""
        self._pairs = _TensorPairs(self.module, pl_module)

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Update the average after each optimizer step."""
        if trainer.global_step > self._latest_update_step:
            assert self._pairs is not None, "training starts with on_train_start"
            self._pairs.average(self.decay_of(trainer.global_step))
            self._latest_update_step = trainer.global_step

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Restore the trained weights of the module if validation was interrupted."""
        if self._swapped:
            self._swap_models(pl_module)

    @override
    def _swap_models(self, pl_module: L.LightningModule) -> None:
        super()._swap_models(pl_module)
        self._swapped = not self._swapped


def averaged_module(trainer: L.Trainer) -> nn.Module:
    """The module with the weights to evaluate and save: the average if there is one, else the trained module."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, EMA):
            return callback.module
    return trainer.lightning_module


class _TensorPairs:
    """Pairs of tensors of the average and of the model; floats are averaged, integers are copied.

    Both use a fused kernel, which needs equal strides and types in a pair. Lightning changes those of the model after
    the average was made, so the average is adapted to them.
    """

    def __init__(self, averaged: nn.Module, current: nn.Module) -> None:
        pairs = list(zip(_tensors(averaged), _tensors(current), strict=True))
        for mean, own in pairs:
            if (mean.stride(), mean.dtype) != (own.stride(), own.dtype):
                mean.data = torch.empty_like(own).copy_(mean)
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]
        self.floats = [pair[0].detach() for pair in floats], [pair[1].detach() for pair in floats]
        self.counts = [pair[0] for pair in counts], [pair[1] for pair in counts]

    @torch.no_grad()
    def average(self, decay: float) -> None:
        get_ema_multi_avg_fn(decay)(*self.floats, None)
        if self.counts[0]:
            torch._foreach_copy_(*self.counts)  # pyright: ignore[reportPrivateImportUsage]


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
