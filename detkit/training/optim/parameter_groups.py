"""Which parameters decay, and how fast each learns."""

from collections.abc import Iterable, Iterator

from torch import nn
from torch.optim import Optimizer

from detkit.training.optim.stages import stages_of
from detkit.training.parts import ParameterGroup


def parameter_groups(
    model: nn.Module, backbone_lr_factor: float = 1.0, layer_decay: float = 1.0
) -> list[ParameterGroup]:
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


def _by_decay(parameters: Iterable[nn.Parameter]) -> Iterator[ParameterGroup]:
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
