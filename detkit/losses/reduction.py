"""The reduction of a loss term to a number: weights, sum and normaliser."""

import torch.distributed as dist
from torch import Tensor


def reduce(values: Tensor, normaliser: Tensor, *, weight: float = 1.0, element_weights: Tensor | None = None) -> Tensor:
    """The weighed sum of the values of a term, divided by the normaliser.

    Args:
        values: of the elements, any shape.
        normaliser: a positive scalar.
        weight: of the term in the total loss.
        element_weights: of each value, of a shape that broadcasts to that of the values.
    """
    weighed = values if element_weights is None else values * element_weights
    return weight * weighed.sum() / normaliser


def or_one(normaliser: Tensor) -> Tensor:
    """The normaliser, or 1 if it is 0, so that an empty sum stays 0."""
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
    """Mean of a number over all ranks, at least 1, for batches without objects."""
    return mean_over_ranks(value).clamp(min=1)
