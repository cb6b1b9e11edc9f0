"""Numbers that are exact enough to compute with."""

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """The values in float32, or in float64 where they are so already."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
