"""Groups of parameters with their own weight decay and learning rate."""

from collections.abc import Iterable, Iterator

from torch import nn
from torch.optim import Optimizer

from detkit.training.optim.stages import stages_of
from detkit.training.parts import ParameterGroup


def parameter_groups(
    model: nn.Module, backbone_lr_factor: float = 1.0, layer_decay: float = 1.0
) -> list[ParameterGroup]:
    """Groups with weight decay for weights and without for norms and biases. Frozen parameters are in no group.

    Args:
        model: its trainable parameters are grouped.
        backbone_lr_factor: learning rate of the backbone, as a factor on the optimizer's.
        layer_decay: a further factor per stage of the backbone, from its last stage, which has 1, to its first.

    Returns:
        Groups for an optimizer; the first one uses the optimizer's weight_decay. If learning rates differ, each group
        has a name and an ``lr_factor`` for ``scale_learning_rates``, and the groups are ordered from head to stem.

    Raises:
        RecipeError: if learning rates differ but the model has no backbone.

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
    """Multiply the learning rate of each group by its ``lr_factor``.

    Must be called before the scheduler is made, because it takes the present learning rates as the peak.
    """
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_factor", 1.0)
    return optimizer


def _by_decay(parameters: Iterable[nn.Parameter]) -> Iterator[ParameterGroup]:
    training = [parameter for parameter in parameters if parameter.requires_grad]
    decayed = [parameter for parameter in training if parameter.ndim >= 2]
    others = [parameter for parameter in training if parameter.ndim < 2]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    return (group for group in groups if group["params"])


def _factors(model: nn.Module, backbone_lr_factor: float, layer_decay: float) -> dict[str, tuple[str, float]]:
    """For each parameter of the backbone the name of its group and the factor on its learning rate."""
    stages = stages_of(model, f"backbone_lr_factor={backbone_lr_factor}, layer_decay={layer_decay}")
    factors = {}
    for number, stage in enumerate(stages, start=1):
        factor = backbone_lr_factor * layer_decay ** (len(stages) - number)
        part = stage.modules[0] if layer_decay != 1 else "backbone"
        factors |= dict.fromkeys(stage.parameters, (part, factor))
    return factors
