"""Check whether many tensors are finite by their norms, in one fused pass."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from detkit.errors import TrainingError


class Norms(NamedTuple):
    """The norms of named tensors, on their device. A norm that overflows is inf."""

    names: list[str]
    values: Tensor  # (names,) float32


def gradient_norms(parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> Norms | None:
    """The norm of the gradient of each parameter; None if no parameter has a gradient."""
    return norms_of((name, value.grad) for name, value in parameters if value.grad is not None)


def norms_of(named: Iterable[tuple[str, Tensor]]) -> Norms | None:
    """The norm of each tensor that is not empty; None if there is no such tensor."""
    filled = {name: tensor.detach() for name, tensor in named if tensor.numel()}
    if not filled:
        return None
    norms = torch._foreach_norm(list(filled.values()))  # noqa: SLF001 # pyright: ignore[reportPrivateImportUsage]
    return Norms(list(filled), torch.stack(norms).float())


def named_floats(module: torch.nn.Module) -> list[tuple[str, Tensor]]:
    """The weights and running statistics of a module."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [(name, value) for name, value in tensors if value.is_floating_point()]


def check_finite(state: Mapping[str, object], step: int) -> None:
    """Refuse a state that is not finite.

    Args:
        state: tensors in any nesting: weights, averaged weights, state of the optimizer.
        step: step of the state, for the message.

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
                raise TrainingError(f"{name} is not finite after step {step}; this state was not saved")


def _floats(value: object, place: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield place, value
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _floats(item, f"{place}.{key}" if place else str(key))
