"""The LightningModule, which connects model, loss, decoder, metric, optimizer and schedule."""

from collections.abc import Callable

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from typing_extensions import override

from detkit.training.optim.parameter_groups import parameter_groups, scale_learning_rates
from detkit.training.optim.schedules import count_steps
from detkit.training.parts import (
    BatchTargets,
    Decode,
    Loss,
    MakeOptimizer,
    MakeScheduler,
    Metric,
    ParameterGroup,
    Predictions,
    TakesTargets,
    TrainingOutput,
    ValidationOutput,
)
from detkit.training.run.logged_steps import is_logged
from detkit.types import Batch

VALIDATION = "val/"  # how the names of a validation's numbers begin


class DetectionModule(L.LightningModule):
    """Train and evaluate any detector or classifier.

    Args:
        model: images (B, 3, H, W) to raw predictions.
        loss: raw predictions and targets to named, weighted terms.
        decode: raw predictions to detections or ranked classes of each image.
        metric: results of an epoch to named numbers, e.g. ``AP``.
        optimizer: called with the groups of parameters to train.
        scheduler: called with the optimizer, ``steps_per_epoch`` and ``total_steps``; stepped once
            per optimizer step.
        groups: model to groups of its trainable parameters, for the optimizer.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        decode: Decode,
        metric: Metric,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler,
        groups: Callable[[nn.Module], list[ParameterGroup]] = parameter_groups,
    ) -> None:
        super().__init__()
        self.model = model
        self.model_takes_targets = isinstance(model, TakesTargets) and model.takes_targets
        self.memory_format = torch.channels_last
        self.loss = loss
        self.decode = decode
        self.metric = metric
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.make_groups = groups
        self.terms: dict[str, Tensor] = {}  # loss terms of the last training batch, on the device

    @override
    def setup(self, stage: str) -> None:
        """Set channels last, as the loader's images are, for faster convolutions.

        Not in float32 on a CPU: there torch's batch norm sums channels-last values sequentially, which changes its
        statistics by 3e-4, so that two processes would not give the same loss as one.
        """
        exact = self.trainer.precision == "32-true" and self.trainer.strategy.root_device.type == "cpu"
        self.memory_format = torch.contiguous_format if exact else torch.channels_last
        self.model.to(memory_format=self.memory_format)

    @override
    def forward(self, images: Tensor, targets: BatchTargets = None) -> Predictions:
        """(B, 3, H, W) RGB in [0, 1], and targets for a model that takes them, to raw predictions."""
        images = images.contiguous(memory_format=self.memory_format)
        takes_targets = targets is not None and self.model_takes_targets
        return self.model(images, targets) if takes_targets else self.model(images)

    @override
    def training_step(self, batch: Batch) -> TrainingOutput:
        """The total loss to minimise, and its terms for callbacks."""
        terms = self.loss(self(batch.images, batch.targets), batch.targets)
        total = torch.stack(tuple(terms.values())).sum()
        self.terms = {name: value.detach() for name, value in terms.items()}
        if is_logged(self.trainer, self.trainer.global_step + 1):
            logged = {f"train/{name}": value for name, value in self.terms.items()}
            self.log_dict({**logged, "train/loss": total.detach()}, batch_size=len(batch.images))
        return {"loss": total, "terms": self.terms}

    @override
    def validation_step(self, batch: Batch) -> ValidationOutput:
        detections = self.decode(self(batch.images))
        self.metric.update(detections, batch.targets)
        return {"detections": detections}

    @override
    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            # The numbers are equal on all ranks, and NCCL cannot reduce them because they are on the CPU.
            self.log_dict({f"{VALIDATION}{name}": value for name, value in self.metric.compute().items()})
        self.metric.reset()

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = scale_learning_rates(self.make_optimizer(self.make_groups(self.model)))
        steps_per_epoch, total_steps = count_steps(self.trainer)
        scheduler = self.make_scheduler(optimizer, steps_per_epoch=steps_per_epoch, total_steps=total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def validation_numbers(trainer: L.Trainer) -> dict[str, float]:
    """The numbers of the last validation under the names that they are logged with, such as ``val/AP``."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(VALIDATION)}
