"""Detect numbers that are not finite before they are saved or evaluated, and stop the run or skip the step."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import lightning as L
import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from detkit.checkpoint import CheckpointState
from detkit.errors import TrainingError
from detkit.ops.ranks import of_all_ranks
from detkit.training.callbacks.ema import averaged_module
from detkit.training.callbacks.metrics_files import MetricsLog
from detkit.training.callbacks.non_finite_report import (
    GRADIENTS,
    LOSS,
    STATE,
    DrawBatch,
    StepSnapshot,
    make_report,
    scaler_handles_overflow,
    write_report,
)
from detkit.training.callbacks.norms import Norms, check_finite, gradient_norms, named_floats, norms_of
from detkit.training.distributed.agreement import StepRequests
from detkit.training.module import DetectionModule
from detkit.training.run.failed_writes import FailedWrites
from detkit.training.run.host_copy import AsyncHostCopy
from detkit.training.settings import NonFinitePolicy
from detkit.types import Batch

CHECKED_KEYS = ("state_dict", "current_model_state", "optimizer_states")  # of a checkpoint
REMEDY = "Try a lower optimizer.lr, a lower trainer.gradient_clip_val or a longer warm-up"
LOG = logging.getLogger(__name__)


class _PendingCheck(NamedTuple):
    """The flags of a completed step that have not been read yet."""

    flags: dict[str, Tensor]  # name of a fault to a flag that is false if there is the fault
    snapshot: StepSnapshot


class NonFinite(L.Callback):
    """Check the loss, the gradients and the weights of every step, on all ranks together.

    Note [when it is checked]: the loss is checked before the optimizer step. On a GPU its flag is copied while the
    backward pass is queued, so the CPU waits for the forward pass only. On a CPU, or if steps may be skipped, the
    gradients are also checked before the step. Otherwise this would make the GPU wait for the CPU, so gradients are
    checked together with the weights while the next forward pass is queued, and always before a validation or a save.

    Note [a skipped step is a step]: a skipped step has no gradients, so optimizers change neither weights nor their own
    state, and running statistics are restored. The step is counted, so the schedule, the order of images and the
    average do not change. A resumed run skips the same steps.

    In half precision with a loss scale of 1 or more, the gradient scaler handles gradients that overflow.

    Args:
        policy: stop: raise a TrainingError; skip: skip the step on all ranks.
        limit: largest number of skipped steps.
        folder: folder of the reports, which rank 0 writes.
        events: log of events. (Lightning uses the name ``log``.)
        failures: records failures to write a report.
        requests: requests of the ranks, sent with the finite check.
        draw_batch: draws a batch.

    Attributes:
        skipped: number of skipped steps.

    Raises:
        TrainingError: with loss terms, image ids and the path of the report.
    """

    def __init__(
        self,
        policy: NonFinitePolicy,
        limit: int,
        folder: Path,
        events: MetricsLog,
        failures: FailedWrites,
        requests: StepRequests,
        draw_batch: DrawBatch,
    ) -> None:
        self.policy = policy
        self.limit = limit
        self.folder = folder
        self.events = events
        self.failures = failures
        self.requests = requests
        self.draw_batch = draw_batch
        self.skipped = 0
        self._checks_before_step = True  # whether gradients are checked before the optimizer step
        self._step = 0  # completed steps
        # Listed once, because listing takes milliseconds in which a GPU may wait for the CPU.
        self._parameters: list[tuple[str, nn.Parameter]] = []
        self._floats: list[tuple[str, Tensor]] = []
        self._batch: Batch | None = None
        self._batch_index = 0
        self._buffers: list[Tensor] | None = None  # copies from before the step, to restore them if it is skipped
        self._flags: AsyncHostCopy | None = None
        self._fault = ""  # the fault of the current step
        self._gradients: Norms | None = None
        self._rates: list[float] = []
        self._gradient_flag: Tensor | None = None  # for the check after the step
        self._pending: _PendingCheck | None = None

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._checks_before_step = self.policy == "skip" or trainer.strategy.root_device.type == "cpu"
        self._step = trainer.global_step
        self._parameters, self._floats = list(pl_module.named_parameters()), named_floats(pl_module)

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self._batch, self._batch_index = batch, batch_idx
        if self.policy == "skip" and self._buffers is None:
            self._buffers = [buffer.clone() for buffer in pl_module.buffers()]

    @override
    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        late = self._pending.flags.values() if self._pending else ()
        sent = self.requests.encoded(loss.device) if trainer.world_size > 1 else ()
        self._flags = _reduce_flags(trainer, [loss.detach().isfinite(), *late, *sent])

    @override
    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert self._flags is not None, "Lightning calls on_before_backward first"
        (own, *own_late), (everyone, *late) = self._flags.read().tolist()
        if trainer.world_size > 1:
            number = len(self.requests.requests)
            self.requests.receive(late[-number:])
            own_late, late = own_late[:-number], late[:-number]
        self._raise_if_failed(trainer, pl_module, own_late, late)
        if not everyone and not self._fault:
            self._gradients = None if own else gradient_norms(self._parameters)
            self._rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
            self._stop_or_skip(trainer, pl_module, LOSS, own_bad=not own)

    @override
    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self._gradients = gradient_norms(self._parameters)
        if self._gradients is not None and not self._fault and not scaler_handles_overflow(trainer):
            flag = self._gradients.values.isfinite().all()
            if self._checks_before_step:
                [own], [everyone] = _reduce_flags(trainer, [flag]).read().tolist()
                if not everyone:
                    self._stop_or_skip(trainer, pl_module, GRADIENTS, own_bad=not own)
            else:
                self._gradient_flag = flag
        if self._fault:
            self._skip(trainer, pl_module)

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return  # gradients are being accumulated
        self._step, self._buffers = trainer.global_step, None
        flags: dict[str, Tensor] = {} if self._gradient_flag is None else {GRADIENTS: self._gradient_flag}
        self._gradient_flag = None
        if (norms := norms_of(self._floats)) is not None:
            flags[STATE] = norms.values.isfinite().all()
        assert isinstance(outputs, Mapping), "training_step returns a TrainingOutput"
        self._pending = _PendingCheck(flags, self._snapshot(trainer, self._step, outputs["terms"]))

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._finish_pending(trainer, pl_module)
        check_finite({"average": averaged_module(trainer).state_dict()}, trainer.global_step)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._finish_pending(trainer, pl_module)

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: CheckpointState) -> None:
        self._finish_pending(trainer, pl_module)
        check_finite({key: checkpoint[key] for key in CHECKED_KEYS if key in checkpoint}, trainer.global_step)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._finish_pending(trainer, pl_module)
        check_finite({"average": averaged_module(trainer).state_dict()}, trainer.global_step)
        if self.skipped and trainer.is_global_zero:
            LOG.warning("%d steps were skipped: %s", self.skipped, self.folder)

    @override
    def state_dict(self) -> CheckpointState:
        return {"skipped": self.skipped}

    @override
    def load_state_dict(self, state_dict: CheckpointState) -> None:
        self.skipped = state_dict["skipped"]

    def _finish_pending(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Read and check the flags of the last step."""
        if self._pending and self._pending.flags:
            own, everyone = _reduce_flags(trainer, list(self._pending.flags.values())).read().tolist()
            self._raise_if_failed(trainer, module, own, everyone)

    def _raise_if_failed(
        self, trainer: L.Trainer, module: L.LightningModule, own: list[int], everyone: list[int]
    ) -> None:
        pending, self._pending = self._pending, None
        if pending is None or all(everyone):
            return
        index = everyone.index(0)
        fault = list(pending.flags)[index]
        self._report(trainer, module, fault, pending.snapshot, own_bad=not own[index])
        state = f"Step {pending.snapshot.step} was completed; nothing was saved after it"
        raise TrainingError(f"{self._fault}. {state}. {REMEDY}")

    def _stop_or_skip(self, trainer: L.Trainer, module: L.LightningModule, fault: str, own_bad: bool) -> None:
        """Stop, or set the fault, so that the step is skipped."""
        assert isinstance(module, DetectionModule), "detkit trains a DetectionModule"
        self._report(trainer, module, fault, self._snapshot(trainer, self._step + 1, module.terms), own_bad)
        if self.policy == "stop":
            state = f"The weights are those of step {self._step}"
            raise TrainingError(f"{self._fault}. {state}. {REMEDY}; non_finite=skip skips such steps")

    def _report(
        self, trainer: L.Trainer, module: L.LightningModule, fault: str, snapshot: StepSnapshot, own_bad: bool
    ) -> None:
        """Write the report of all ranks, and set the same message on all ranks."""
        own = make_report(fault, snapshot, module, trainer, self.draw_batch) if own_bad else None
        reports = [report for report in of_all_ranks(own) if report is not None]
        path = ""
        if trainer.is_global_zero:
            with self.failures.recording(self.folder):
                path = f". Report: {write_report(self.folder, reports)}"
            self.events.event("non_finite", snapshot.step, {"what": fault, "image_ids": reports[0].facts["image_ids"]})
        self._fault = reports[0].describe() + trainer.strategy.broadcast(path)

    def _skip(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Undo the changes by the batches of this step, see Note [a skipped step is a step]."""
        for _, parameter in self._parameters:
            parameter.grad = None
        for buffer, before in zip(module.buffers(), self._buffers or (), strict=True):
            buffer.copy_(before)
        self.skipped += 1
        if self.skipped > self.limit:
            count = f"{self.skipped} steps were not finite, and max_non_finite is {self.limit}"
            raise TrainingError(f"{count}. The last: {self._fault}. {REMEDY}")
        if self.skipped == 1 and trainer.is_global_zero:
            LOG.warning("skipped a step: %s. Further skipped steps are logged in metrics.jsonl only", self._fault)
        self._fault = ""

    def _snapshot(self, trainer: L.Trainer, step: int, terms: Mapping[str, Tensor]) -> StepSnapshot:
        assert self._batch is not None, "on_train_batch_start sets the batch"
        place = step, trainer.current_epoch + 1, self._batch_index
        return StepSnapshot(*place, self._batch, terms, self._gradients, self._rates)


def _reduce_flags(trainer: L.Trainer, flags: list[Tensor]) -> AsyncHostCopy:
    """(2, flags) uint8: the flags of this rank, and their minimum over all ranks."""
    own = torch.stack([flag.to(torch.uint8) for flag in flags])
    everyone = own.clone()
    if trainer.world_size > 1:
        torch.distributed.all_reduce(everyone, op=torch.distributed.ReduceOp.MIN)
    return AsyncHostCopy(torch.stack((own, everyone)))
