"""What layers of a network give, taken by hooks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def by_hooks(network: nn.Module, layers: Sequence[str], images: Tensor) -> list[Tensor]:
    """Outputs of the layers, copied the moment they are there."""
    maps: dict[str, Tensor] = {}

    def keep(layer: str) -> Any:
        return lambda _, __, output: maps.__setitem__(layer, output.clone())

    handles = [network.get_submodule(layer).register_forward_hook(keep(layer)) for layer in layers]
    with torch.no_grad():
        network(images)
    for handle in handles:
        handle.remove()
    return [maps[layer] for layer in layers]
