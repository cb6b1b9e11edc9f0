"""Absolute differences, plain and rounded off at the bottom."""

import torch.nn.functional as F
from torch import Tensor

from detkit.losses.reduction import Reduction, reduce
from detkit.ops.precision import at_least_float32


def l1_loss(
    predictions: Tensor,
    targets: Tensor,
    *,
    weight: float = 1.0,
    element_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    normaliser: Tensor | None = None,
) -> Tensor:
    """|prediction - target|, reduced as ``reduce`` says, in float32 or better.

    Args:
        predictions: any shape.
        targets: the same shape.
        weight: as for ``reduce``, like all that follow.
        element_weights: see there.
        reduction: see there.
        normaliser: see there.

    Raises:
        ValueError: if the shapes differ.
    """
    predictions, targets = _as_one_dtype(predictions, targets)
    values = F.l1_loss(predictions, targets, reduction="none")
    return reduce(values, reduction, weight=weight, element_weights=element_weights, normaliser=normaliser)


def smooth_l1_loss(
    predictions: Tensor,
    targets: Tensor,
    beta: float = 1.0,
    *,
    weight: float = 1.0,
    element_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    normaliser: Tensor | None = None,
) -> Tensor:
    """L1 above beta less beta / 2, and a parabola of the same slope below; reduced as ``reduce`` says.

    Args:
        predictions: any shape.
        targets: the same shape.
        beta: the difference where both parts meet; 0 is plain L1.
        weight: as for ``reduce``, like all that follow.
        element_weights: see there.
        reduction: see there.
        normaliser: see there.

    Raises:
        ValueError: if the shapes differ, or beta is negative.

    Source: Girshick, Fast R-CNN, 2015, eq. 3 (beta = 1). https://arxiv.org/abs/1504.08083
    """
    if beta < 0:
        raise ValueError(f"beta must not be negative; got {beta}")
    predictions, targets = _as_one_dtype(predictions, targets)
    values = F.smooth_l1_loss(predictions, targets, reduction="none", beta=beta)
    return reduce(values, reduction, weight=weight, element_weights=element_weights, normaliser=normaliser)


def _as_one_dtype(predictions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Torch would broadcast what differs in shape, and add up halves."""
    if predictions.shape != targets.shape:
        raise ValueError(
            f"predictions and targets must have one shape; got {tuple(predictions.shape)} and {tuple(targets.shape)}"
        )
    predictions = at_least_float32(predictions)
    return predictions, targets.to(predictions.dtype)
