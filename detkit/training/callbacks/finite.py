"""Numbers that are not finite: found before they can spoil anything, reported, and the step stopped or skipped."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from detkit.errors import TrainingError
from detkit.ops.ranks import of_all_ranks
from detkit.training.callbacks.ema import averaged_module
from detkit.training.callbacks.metrics_files import MetricsLog
from detkit.training.callbacks.non_finite_report import (
    GRADIENTS,
    LOSS,
    STATE,
    Moment,
    Norms,
    Sheet,
    gradient_norms,
    left_to_the_scaler,
    make_report,
    named_floats,
    norms_of,
    write_report,
)
from detkit.training.distributed.agreement import StepRequests
from detkit.training.module import DetectionModule
from detkit.training.run.failed_writes import FailedWrites
from detkit.training.run.host_copy import AsyncHostCopy
from detkit.types import Batch

NonFinitePolicy = Literal["stop", "skip"]
KEPT = ("state_dict", "current_model_state", "optimizer_states")  # of a checkpoint: what must be finite
REMEDY = "Try a lower optimizer.lr, a lower trainer.gradient_clip_val or a longer warm-up"
LOG = logging.getLogger(__name__)


class _Late(NamedTuple):
    """What was asked after a step and is not known yet."""

    flags: dict[str, Tensor]  # what is wrong unless the flag is true
    moment: Moment


class NonFinite(L.Callback):
    """Look at the loss, the gradients and the weights of every step, on all ranks together.

    Note [when it is looked]: the loss before the optimizer step; on a GPU its flag is copied while the
    backward pass is being queued, and what is waited for is the forward pass alone. Gradients too
    before the step, on a CPU or if steps may be skipped; else on a GPU, where waiting for them would
    let the device run dry, together with the weights: while the next forward pass is queued, and in
    any case before a validation or a save. So nothing that is not finite is ever saved or evaluated.

    Note [a skipped step is a step]: it has no gradients, so that optimizers leave weights and their own
    state alone; running statistics are put back. The step counts, and with it schedule, order of images
    and average go on as always: all of them are functions of its number. A resumed run skips the same.

    In half precision with a loss scale of 1 or more, gradients that overflow are the scaler's business.

    Args:
        policy: stop: with a TrainingError; skip: leave the step out on all ranks.
        limit: more skipped steps than this end the run.
        folder: of the reports; rank 0 writes them.
        events: where it is noted what happened; Lightning keeps the name log for itself.
        failures: where it is noted that a report could not be written.
        requests: of the ranks, which travel with the finite check.
        sheet: draws a batch.

    Attributes:
        skipped: steps so far.

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
        sheet: Sheet,
    ) -> None:
        self.policy = policy
        self.limit = limit
        self.folder = folder
        self.events = events
        self.failures = failures
        self.requests = requests
        self.sheet = sheet
        self.skipped = 0
        self._waits = True  # for gradients, before the optimizer step
        self._step = 0  # done so far
        # Listed once: to walk through a module takes milliseconds, in which a GPU may run out of work.
        self._parameters: list[tuple[str, nn.Parameter]] = []
        self._floats: list[tuple[str, Tensor]] = []
        self._batch: Batch | None = None
        self._batch_index = 0
        self._buffers: list[Tensor] | None = None  # as they were before the step; in order to skip it
        self._verdict: AsyncHostCopy | None = None
        self._bad = ""  # what is wrong with the step under way
        self._gradients: Norms | None = None
        self._rates: list[float] = []
        self._asked: Tensor | None = None  # the flag of gradients that were not waited for
        self._late: _Late | None = None

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._waits = self.policy == "skip" or trainer.strategy.root_device.type == "cpu"
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
        late = self._late.flags.values() if self._late else ()
        sent = self.requests.to_send(loss.device) if trainer.world_size > 1 else ()
        self._verdict = _judge(trainer, [loss.detach().isfinite(), *late, *sent])

    @override
    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert self._verdict is not None, "on_before_backward came before"
        (own, *own_late), (everyone, *late) = self._verdict.read().tolist()
        if trainer.world_size > 1:
            number = len(self.requests.asked)
            self.requests.hear(late[-number:])
            own_late, late = own_late[:-number], late[:-number]
        self._refuse_late(trainer, pl_module, own_late, late)
        if not everyone and not self._bad:
            self._gradients = None if own else gradient_norms(self._parameters)
            self._rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
            self._found(trainer, pl_module, LOSS, own_bad=not own)

    @override
    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self._gradients = gradient_norms(self._parameters)
        if self._gradients is not None and not self._bad and not left_to_the_scaler(trainer):
            flag = self._gradients.values.isfinite().all()
            if self._waits:
                [own], [everyone] = _judge(trainer, [flag]).read().tolist()
                if not everyone:
                    self._found(trainer, pl_module, GRADIENTS, own_bad=not own)
            else:
                self._asked = flag
        if self._bad:
            self._skip(trainer, pl_module)

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return  # gradients are being accumulated
        self._step, self._buffers = trainer.global_step, None
        flags: dict[str, Tensor] = {} if self._asked is None else {GRADIENTS: self._asked}
        self._asked = None
        if (norms := norms_of(self._floats)) is not None:
            flags[STATE] = norms.values.isfinite().all()
        self._late = _Late(flags, self._moment(trainer, self._step, outputs["terms"]))

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._settle(trainer, pl_module)
        check_finite({"average": averaged_module(trainer).state_dict()}, trainer.global_step)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._settle(trainer, pl_module)

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._settle(trainer, pl_module)
        check_finite({key: checkpoint[key] for key in KEPT if key in checkpoint}, trainer.global_step)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._settle(trainer, pl_module)
        check_finite({"average": averaged_module(trainer).state_dict()}, trainer.global_step)
        if self.skipped and trainer.is_global_zero:
            LOG.warning("%d steps were skipped: %s", self.skipped, self.folder)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped = state_dict["skipped"]

    def _settle(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Wait for what was asked after the last step."""
        if self._late and self._late.flags:
            own, everyone = _judge(trainer, list(self._late.flags.values())).read().tolist()
            self._refuse_late(trainer, module, own, everyone)

    def _refuse_late(self, trainer: L.Trainer, module: L.LightningModule, own: list[int], everyone: list[int]) -> None:
        late, self._late = self._late, None
        if late is None or all(everyone):
            return
        wrong = everyone.index(0)
        what = list(late.flags)[wrong]
        self._report(trainer, module, what, late.moment, own_bad=not own[wrong])
        before = f"Step {late.moment.step} was done; nothing was saved after it"
        raise TrainingError(f"{self._bad}. {before}. {REMEDY}")

    def _found(self, trainer: L.Trainer, module: L.LightningModule, what: str, own_bad: bool) -> None:
        """Stop, or remember to skip."""
        assert isinstance(module, DetectionModule), "detkit trains a DetectionModule"
        self._report(trainer, module, what, self._moment(trainer, self._step + 1, module.terms), own_bad)
        if self.policy == "stop":
            before = f"The weights are those of step {self._step}"
            raise TrainingError(f"{self._bad}. {before}. {REMEDY}; non_finite=skip leaves such steps out")

    def _report(self, trainer: L.Trainer, module: L.LightningModule, what: str, moment: Moment, own_bad: bool) -> None:
        """Write down what the ranks know; afterwards all of them say the same."""
        own = make_report(what, moment, module, trainer, self.sheet) if own_bad else None
        reports = [report for report in of_all_ranks(own) if report is not None]
        place = ""
        if trainer.is_global_zero:
            with self.failures.noting(self.folder):
                place = f". Report: {write_report(self.folder, reports)}"
            self.events.event("non_finite", moment.step, {"what": what, "image_ids": reports[0].facts["image_ids"]})
        self._bad = reports[0].describe() + trainer.strategy.broadcast(place)

    def _skip(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Leave nothing of the batches of this step, see Note [a skipped step is a step]."""
        for _, parameter in self._parameters:
            parameter.grad = None
        for buffer, before in zip(module.buffers(), self._buffers or (), strict=True):
            buffer.copy_(before)
        self.skipped += 1
        if self.skipped > self.limit:
            count = f"{self.skipped} steps were not finite, and max_non_finite is {self.limit}"
            raise TrainingError(f"{count}. The last: {self._bad}. {REMEDY}")
        if self.skipped == 1 and trainer.is_global_zero:
            LOG.warning("skipped: %s. Further ones are in metrics.jsonl", self._bad)
        self._bad = ""

    def _moment(self, trainer: L.Trainer, step: int, terms: Mapping[str, Tensor]) -> Moment:
        assert self._batch is not None, "a batch was started"
        place = step, trainer.current_epoch + 1, self._batch_index
        return Moment(*place, self._batch, terms, self._gradients, self._rates)


def check_finite(state: Mapping[str, Any], step: int) -> None:
    """Refuse a state that must not be kept.

    Args:
        state: weights, averaged weights and the optimizer's state: tensors in any nesting.
        step: that it is of.

    Raises:
        TrainingError: if a tensor is not finite.
    """
    by_device: dict[Any, list[tuple[str, Tensor]]] = {}
    for name, tensor in _floats(state, ""):
        by_device.setdefault((tensor.device, tensor.dtype), []).append((name, tensor))
    for named in by_device.values():
        norms = norms_of(named)
        if norms is None or norms.values.isfinite().all():
            continue
        for name, tensor in named:
            if not tensor.isfinite().all():
                raise TrainingError(f"{name} is not finite after step {step}; nothing was saved of it")


def _floats(value: Any, place: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield place, value
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _floats(item, f"{place}.{key}" if place else str(key))


def _judge(trainer: L.Trainer, flags: list[Tensor]) -> AsyncHostCopy:
    """(2, flags) uint8: what this rank says, and the least that any of them says."""
    own = torch.stack([flag.to(torch.uint8) for flag in flags])
    everyone = own.clone()
    if trainer.world_size > 1:
        torch.distributed.all_reduce(everyone, op=torch.distributed.ReduceOp.MIN)
    return AsyncHostCopy(torch.stack((own, everyone)))
