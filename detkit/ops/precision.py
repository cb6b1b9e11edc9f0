"""Precision in which losses and boxes are computed."""

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """The values in float32, or in float64 if they are float64 already."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
