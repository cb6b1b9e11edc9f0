"""From the values of a loss term to its number: the one place where terms are weighed, summed and averaged."""

from typing import Literal

import torch.distributed as dist
from torch import Tensor

Reduction = Literal["mean", "sum", "none"]


def reduce(
    values: Tensor,
    reduction: Reduction = "mean",
    *,
    weight: float = 1.0,
    element_weights: Tensor | None = None,
    normaliser: Tensor | None = None,
) -> Tensor:
    """Weigh the values of a term, and sum or average them.

    Args:
        values: of the elements, any shape.
        reduction: "mean" divides the weighed sum by the normaliser; "none" keeps the shape.
        weight: of the term in the total loss.
        element_weights: of each value, of a shape that broadcasts to that of the values.
        normaliser: a positive scalar to divide by; None: the sum of the element weights, which is the
            number of elements where there are none. A mean over nothing is 0.

    Raises:
        ValueError: for another reduction, or a normaliser without a mean.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be mean, sum or none; got {reduction!r}")
    if normaliser is not None and reduction != "mean":
        raise ValueError(f"a normaliser goes with reduction mean; got {reduction}")
    weighed = values if element_weights is None else values * element_weights
    if reduction == "none":
        return weight * weighed
    total = weight * weighed.sum()
    if reduction == "sum":
        return total
    return total / (_sum_of_weights(values, element_weights) if normaliser is None else normaliser)


def or_one(normaliser: Tensor) -> Tensor:
    """The normaliser, or 1 where it is 0: a sum over nothing stays 0."""
    return normaliser.where(normaliser != 0, 1)


def mean_over_ranks(value: Tensor) -> Tensor:
    """Mean of a number over all ranks.

    Note [one normaliser for all ranks]: gradients are averaged over ranks, so a sum divided by the
    ranks' mean normaliser gives the gradient of one process on the joined batch.
    """
    if dist.is_available() and dist.is_initialized():
        value = value.clone()
        dist.all_reduce(value)
        value = value / dist.get_world_size()
    return value


def average_over_ranks(value: Tensor) -> Tensor:
    """Mean of a number over all ranks, at least 1: a batch without objects has its negatives alone."""
    return mean_over_ranks(value).clamp(min=1)


def _sum_of_weights(values: Tensor, element_weights: Tensor | None) -> Tensor:
    if element_weights is None:
        return or_one(values.new_tensor(float(values.numel())))
    return or_one(element_weights.to(values.dtype).expand_as(values).sum())
