"""Absolute differences."""

import torch.nn.functional as F
from torch import Tensor

from detkit.ops.precision import at_least_float32


def l1_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """|prediction - target| of each element, in float32 or better, not reduced.

    Args:
        predictions: any shape.
        targets: the same shape.

    Raises:
        ValueError: if the shapes differ, which torch would broadcast.
    """
    if predictions.shape != targets.shape:
        raise ValueError(
            f"predictions and targets must have one shape; got {tuple(predictions.shape)} and {tuple(targets.shape)}"
        )
    predictions = at_least_float32(predictions)
    return F.l1_loss(predictions, targets.to(predictions.dtype), reduction="none")
