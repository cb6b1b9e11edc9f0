"""Stop when the loss is not finite, before the optimizer can spoil the weights."""

from typing import Any

import lightning as L
import torch
from torch import Tensor
from typing_extensions import override

from detkit.errors import TrainingError
from detkit.types import Batch

SHOWN = 16


class StopOnNonFiniteLoss(L.Callback):
    """Look at the loss of every batch after its backward pass and before the optimizer step.

    Note [no stall]: on a GPU the flag is copied while the backward pass is being queued, and what is
    waited for is the forward pass alone, so the device never runs out of work.

    Raises:
        TrainingError: with the loss terms and the images of the batch.
    """

    def __init__(self) -> None:
        self._batch: Batch | None = None
        self._is_finite: Tensor | None = None
        self._copied: torch.cuda.Event | None = None

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self._batch = batch

    @override
    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        is_finite = loss.detach().isfinite()
        if loss.is_cuda:
            self._is_finite = torch.empty((), dtype=torch.bool, pin_memory=True)
            self._is_finite.copy_(is_finite, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        else:
            self._is_finite = is_finite

    @override
    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._copied is not None:
            self._copied.synchronize()
        if not self._is_finite:
            raise TrainingError(self._report(trainer))

    def _report(self, trainer: L.Trainer) -> str:
        terms = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("train/")}
        values = ", ".join(f"{name.removeprefix('train/')} {float(value):.4g}" for name, value in terms.items())
        assert self._batch is not None, "a batch was started"
        ids = [str(target.image_id) for target in self._batch.targets]
        more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
        return (
            f"the loss is not finite after step {trainer.global_step} (epoch {trainer.current_epoch + 1}): {values}; "
            f"image ids {', '.join(ids[:SHOWN])}{more}. The weights are those of step {trainer.global_step}. "
            "Try a lower optimizer.lr, a lower trainer.gradient_clip_val or a longer warm-up"
        )


def check_finite(state: dict[str, Any], step: int) -> None:
    """Refuse weights that must not be kept.

    Raises:
        TrainingError: if a weight is not finite.
    """
    for name, value in state.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            raise TrainingError(f"the weight {name} is not finite after step {step}; nothing was saved of it")
