"""The parameters and buffers of a model by name."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from math import nan
from typing import NamedTuple

from torch import Tensor, nn

from detkit.errors import RecipeError, did_you_mean


class Weight(NamedTuple):
    """A parameter or buffer. Its numbers are nan where it has no elements."""

    name: str
    shape: tuple[int, ...]
    mean: float
    std: float  # of the population: 0 for a single value
    minimum: float
    maximum: float
    role: str  # "trainable", "frozen" or "buffer"


def find_weights(model: nn.Module, patterns: Sequence[str]) -> list[Weight]:
    """Parameters and buffers whose name matches a pattern, in the order of the model.

    Args:
        model: any.
        patterns: complete names with ``*``, ``?`` and ``[...]`` as in file names; ``*`` matches dots as well.

    Raises:
        RecipeError: if a pattern matches nothing; the error lists the nearest names.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in tensors):
            near = did_you_mean(pattern.replace("*", ""), tensors, 3, likeness=0) or "; there are none"
            raise RecipeError(f"names: no parameter or buffer matches {pattern!r}{near}")
    return [
        _weight(name, tensor)
        for name, tensor in tensors.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    ]


def _weight(name: str, tensor: Tensor) -> Weight:
    role = "buffer" if not isinstance(tensor, nn.Parameter) else "trainable" if tensor.requires_grad else "frozen"
    values = tensor.detach().double()
    if not values.numel():
        return Weight(name, tuple(tensor.shape), nan, nan, nan, nan, role)
    return Weight(
        name=name,
        shape=tuple(tensor.shape),
        mean=values.mean().item(),
        std=values.std(correction=0).item(),
        minimum=values.min().item(),
        maximum=values.max().item(),
        role=role,
    )
