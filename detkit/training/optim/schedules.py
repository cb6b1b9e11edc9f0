"""How the learning rate goes over the steps of a run."""

import math

import lightning as L
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from detkit.errors import RecipeError


def count_steps(trainer: L.Trainer) -> tuple[int, int]:
    """Optimizer steps of an epoch and of the run.

    Not ``trainer.estimated_stepping_batches``: it begins to read the training data, and before a
    checkpoint's progress is restored that is the wrong place to begin at.

    Raises:
        RecipeError: if the run has no end.
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
    """Rise to the optimizer's learning rate, then fall as half a cosine.

    A pure function of the step, so a resumed run needs the number of the step and nothing else.

    Args:
        optimizer: whose learning rates are the peak.
        steps_per_epoch: optimizer steps of an epoch.
        total_steps: optimizer steps of the run.
        warmup_epochs: length of the rise, at most half of the run.
        final_frac: end of the fall, as a fraction of the peak.
        warmup_power: 1 rises in a line, 2 as YOLOX does.
        last_epochs: at the end, constant at final_frac; at most a quarter of the run.

    Raises:
        ValueError: if the fall would have no step.

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
        _check_fall(warmup_steps, end, total_steps)

        def factor(step: int) -> float:
            if step < warmup_steps:
                return ((step + 1) / warmup_steps) ** warmup_power
            return _cosine(step, warmup_steps, end, final_frac)

        super().__init__(optimizer, factor)


class WarmupFlatCosine(LambdaLR):
    """Rise to the optimizer's learning rate, stay, then fall as half a cosine.

    Args:
        optimizer: whose learning rates are the peak.
        steps_per_epoch: optimizer steps of an epoch.
        total_steps: optimizer steps of the run.
        warmup_epochs: length of the rise in a line, at most half of the run.
        flat_frac: where the fall begins, as a fraction of the run.
        final_frac: end of the fall, as a fraction of the peak.
        last_epochs: at the end, constant at final_frac; at most a quarter of the run.

    Raises:
        ValueError: if the fall would have no step.

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
        _check_fall(start, end, total_steps)

        def factor(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / warmup_steps
            return _cosine(step, start, end, final_frac)

        super().__init__(optimizer, factor)


def go_on_at_step(scheduler: LRScheduler, other: LRScheduler) -> None:
    """Put a new scheduler where another one stands, whose optimizer had other groups.

    Its learning rates must be a pure function of the step, as those of WarmupCosine are.
    """
    if other.last_epoch > 0:  # which counts calls of step
        progress = {"last_epoch": other.last_epoch - 1, "_step_count": other.last_epoch + 1}
        scheduler.load_state_dict({**scheduler.state_dict(), **progress})
        scheduler.step()


def _warmup_steps(warmup_epochs: float, steps_per_epoch: int, total_steps: int) -> int:
    return min(round(warmup_epochs * steps_per_epoch), total_steps // 2)


def _check_fall(start: int, end: int, total_steps: int) -> None:
    if not 0 <= start < end <= total_steps:
        raise ValueError(
            f"the learning rate must have steps to fall in: it falls from step {start} to {end} of {total_steps}; "
            "use less of warmup_epochs, flat_frac or last_epochs, or train longer"
        )


def _cosine(step: int, start: int, end: int, final_frac: float) -> float:
    """1 up to start, final_frac from end on, half a cosine between."""
    progress = min(max((step - start) / (end - start), 0.0), 1.0)
    return final_frac + (1 - final_frac) * (1 + math.cos(math.pi * progress)) / 2
