"""The rule that image sides are multiples of a model's largest stride."""

from torch import nn


def largest_stride_of(model: nn.Module) -> int:
    """The stride in pixels that image sides must be multiples of; 1 for a model that does not state one."""
    return getattr(model, "largest_stride", 1)  # optional on a user's own model


def stride_fault(image_hw: tuple[int, int], stride: int) -> str:
    """Say why an image size does not fit a stride, and which size near it does; empty if it fits."""
    if all(side >= stride and side % stride == 0 for side in image_hw):
        return ""
    nearest = [max(1, round(side / stride)) * stride for side in image_hw]
    rule = f"must be multiples of {stride}, the model's largest stride"
    return f"{rule}; got {list(image_hw)}, the nearest size is {nearest}"
