"""Learning-rate schedules over the steps of a run."""

import math

import lightning as L
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from detkit.errors import RecipeError


def count_steps(trainer: L.Trainer) -> tuple[int, int]:
    """Optimizer steps of an epoch and of the run.

    ``trainer.estimated_stepping_batches`` would start to read the training data before the position of a resumed run
    is restored from the checkpoint.

    Raises:
        RecipeError: if neither max_epochs nor max_steps is set.
    """
    loader = trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
    limit = trainer.limit_train_batches
    batches = min(len(loader), limit) if isinstance(limit, int) else int(len(loader) * limit)
    steps_per_epoch = math.ceil(batches / trainer.accumulate_grad_batches)
    ends = [trainer.max_steps] if trainer.max_steps >= 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        ends.append(steps_per_epoch * trainer.max_epochs)
    if not ends:
        raise RecipeError("trainer: set max_epochs or max_steps: the learning rate's schedule needs an end")
    return steps_per_epoch, min(ends)


class WarmupCosine(LambdaLR):
    """Warm-up to the optimizer's learning rate, then a decay as half a cosine.

    The learning rate is a pure function of the step, so a resumed run needs only the number of the step.

    Args:
        optimizer: its learning rates are the peak.
        steps_per_epoch: optimizer steps of an epoch.
        total_steps: optimizer steps of the run.
        warmup_epochs: length of the warm-up, at most half of the run.
        final_frac: final learning rate, as a fraction of the peak.
        warmup_power: 1 for a linear warm-up, 2 for the quadratic one of YOLOX.
        last_epochs: epochs at the end with the final learning rate, at most a quarter of the run.

    Raises:
        ValueError: if no step is left for the decay.

    Source: Loshchilov and Hutter, SGDR, 2017, eq. 5. https://arxiv.org/abs/1608.03983
        Warm-up: Goyal et al., 2017, §2.2. https://arxiv.org/abs/1706.02677
        Differs from YOLOX in: the first step has a learning rate above 0.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        steps_per_epoch: int,
        total_steps: int,
        warmup_epochs: float = 3.0,
        final_frac: float = 0.01,
        warmup_power: float = 1.0,
        last_epochs: float = 0.0,
    ) -> None:
        warmup_steps = _warmup_steps(warmup_epochs, steps_per_epoch, total_steps)
        end = total_steps - min(round(last_epochs * steps_per_epoch), total_steps // 4)
        _check_decay(warmup_steps, end, total_steps)

        def factor(step: int) -> float:
            if step < warmup_steps:
                return ((step + 1) / warmup_steps) ** warmup_power
            return _cosine(step, warmup_steps, end, final_frac)

        super().__init__(optimizer, factor)


class WarmupFlatCosine(LambdaLR):
    """Warm-up to the optimizer's learning rate, a constant part, then a decay as half a cosine.

    Args:
        optimizer: its learning rates are the peak.
        steps_per_epoch: optimizer steps of an epoch.
        total_steps: optimizer steps of the run.
        warmup_epochs: length of the linear warm-up, at most half of the run.
        flat_frac: start of the decay, as a fraction of the run.
        final_frac: final learning rate, as a fraction of the peak.
        last_epochs: epochs at the end with the final learning rate, at most a quarter of the run.

    Raises:
        ValueError: if no step is left for the decay.

    Source: Lyu et al., RTMDet, 2022, §3.5. https://arxiv.org/abs/2212.07784
    """

    def __init__(
        self,
        optimizer: Optimizer,
        steps_per_epoch: int,
        total_steps: int,
        warmup_epochs: float = 3.0,
        flat_frac: float = 0.5,
        final_frac: float = 0.01,
        last_epochs: float = 0.0,
    ) -> None:
        warmup_steps = _warmup_steps(warmup_epochs, steps_per_epoch, total_steps)
        start = max(warmup_steps, round(flat_frac * total_steps))
        end = total_steps - min(round(last_epochs * steps_per_epoch), total_steps // 4)
        _check_decay(start, end, total_steps)

        def factor(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / warmup_steps
            return _cosine(step, start, end, final_frac)

        super().__init__(optimizer, factor)


def continue_at_step(scheduler: LRScheduler, other: LRScheduler) -> None:
    """Advance a new scheduler to the step of another one, whose optimizer has other groups.

    The learning rate must be a pure function of the step, as that of WarmupCosine.
    """
    if other.last_epoch > 0:  # the number of calls of step
        progress = {"last_epoch": other.last_epoch - 1, "_step_count": other.last_epoch + 1}
        scheduler.load_state_dict({**scheduler.state_dict(), **progress})
        scheduler.step()


def _warmup_steps(warmup_epochs: float, steps_per_epoch: int, total_steps: int) -> int:
    return min(round(warmup_epochs * steps_per_epoch), total_steps // 2)


def _check_decay(start: int, end: int, total_steps: int) -> None:
    if not 0 <= start < end <= total_steps:
        raise ValueError(
            f"the decay of the learning rate needs steps; got start {start} and end {end} of {total_steps} steps; "
            "reduce warmup_epochs, flat_frac or last_epochs, or train longer"
        )


def _cosine(step: int, start: int, end: int, final_frac: float) -> float:
    """1 up to start, final_frac after end, and half a cosine between them."""
    progress = min(max((step - start) / (end - start), 0.0), 1.0)
    return final_frac + (1 - final_frac) * (1 + math.cos(math.pi * progress)) / 2
