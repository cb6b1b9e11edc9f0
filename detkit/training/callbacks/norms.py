"""Whether many tensors are finite, by their norms: one fused pass over all of them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from detkit.errors import TrainingError


class Norms(NamedTuple):
    """Of named tensors, on their device; nothing waits for them. A norm that overflows is inf."""

    names: list[str]
    values: Tensor  # (names,) float32


def gradient_norms(parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> Norms | None:
    """Of each parameter that has a gradient; None if none has."""
    return norms_of((name, value.grad) for name, value in parameters if value.grad is not None)


def norms_of(named: Iterable[tuple[str, Tensor]]) -> Norms | None:
    """One fused pass for all; the largest value of each would be twelve times slower on a CPU."""
    filled = {name: tensor.detach() for name, tensor in named if tensor.numel()}
    if not filled:
        return None
    norms = torch._foreach_norm(list(filled.values()))  # noqa: SLF001 # pyright: ignore[reportPrivateImportUsage]
    return Norms(list(filled), torch.stack(norms).float())


def named_floats(module: torch.nn.Module) -> list[tuple[str, Tensor]]:
    """Weights and running statistics."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [(name, value) for name, value in tensors if value.is_floating_point()]


def check_finite(state: Mapping[str, object], step: int) -> None:
    """Refuse a state that is not finite.

    Args:
        state: weights, averaged weights and the optimizer's state: tensors in any nesting.
        step: that it is of.

    Raises:
        TrainingError: if a tensor is not finite.
    """
    by_device: dict[tuple[torch.device, torch.dtype], list[tuple[str, Tensor]]] = {}
    for name, tensor in _floats(state, ""):
        by_device.setdefault((tensor.device, tensor.dtype), []).append((name, tensor))
    for named in by_device.values():
        norms = norms_of(named)
        if norms is None or norms.values.isfinite().all():
            continue
        for name, tensor in named:
            if not tensor.isfinite().all():
                raise TrainingError(f"{name} is not finite after step {step}; nothing was saved of it")


def _floats(value: object, place: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield place, value
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _floats(item, f"{place}.{key}" if place else str(key))
