"""The rule that image sides are multiples of a model's largest stride."""

from torch import nn


def largest_stride_of(model: nn.Module) -> int:
    """The stride in pixels that image sides must be multiples of; 1 for a model that does not state one."""
    return getattr(model, "largest_stride", 1)  # optional on a user's own model
