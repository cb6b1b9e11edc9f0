"""Which parameters decay and how fast each learns, and how the learning rate goes over the steps."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import lightning as L
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from detkit.errors import RecipeError
from detkit.training.optim.stages import stages_of


def parameter_groups(
    model: nn.Module, backbone_lr_factor: float = 1.0, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Weights decay; norms and biases, which have one dimension, do not. Frozen parameters are left out.

    Args:
        model: whose parameters train.
        backbone_lr_factor: learning rate of the backbone, as a factor on the optimizer's.
        layer_decay: factor on that from each stage of the backbone to the one before it; its last stage has 1.

    Returns:
        Groups for an optimizer; the first takes the optimizer's own weight_decay. Where learning rates differ,
        each has a name and an ``lr_factor``, for ``scale_learning_rates``; what lies nearest to the loss comes first.

    Raises:
        RecipeError: if learning rates differ, but the model has no backbone.

    Source: layer_decay: Howard and Ruder, ULMFiT, 2018, §3.2. https://arxiv.org/abs/1801.06146
    """
    if backbone_lr_factor == layer_decay == 1:
        return list(_by_decay(model.parameters()))
    factors = _factors(model, backbone_lr_factor, layer_decay)
    parts: dict[tuple[str, float], list[nn.Parameter]] = {("others", 1.0): []}
    for name, parameter in model.named_parameters():
        parts.setdefault(factors.get(name, ("others", 1.0)), []).append(parameter)
    groups = []
    others, *backbone = parts.items()
    for (name, factor), parameters in (others, *reversed(backbone)):
        for group in _by_decay(parameters):
            suffix = "/no_decay" if "weight_decay" in group else ""
            groups.append({**group, "name": f"{name}{suffix}", "lr_factor": factor})
    return groups


def scale_learning_rates(optimizer: Optimizer) -> Optimizer:
    """The new optimizer, with the learning rate of each group times its ``lr_factor``.

    Before a scheduler is made, which takes what it finds as the peak.
    """
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_factor", 1.0)
    return optimizer


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


def _by_decay(parameters: Iterable[nn.Parameter]) -> Iterator[dict[str, Any]]:
    training = [parameter for parameter in parameters if parameter.requires_grad]
    decayed = [parameter for parameter in training if parameter.ndim >= 2]
    others = [parameter for parameter in training if parameter.ndim < 2]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    return (group for group in groups if group["params"])


def _factors(model: nn.Module, backbone_lr_factor: float, layer_decay: float) -> dict[str, tuple[str, float]]:
    """For each parameter of the backbone the name of its part, and the factor on its learning rate."""
    stages = stages_of(model, f"backbone_lr_factor={backbone_lr_factor}, layer_decay={layer_decay}")
    factors = {}
    for number, stage in enumerate(stages, start=1):
        factor = backbone_lr_factor * layer_decay ** (len(stages) - number)
        part = stage.modules[0] if layer_decay != 1 else "backbone"
        factors |= dict.fromkeys(stage.parameters, (part, factor))
    return factors


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
