"""Whether images of the data's size fit a model."""

from typing import Any

from torch import nn

from detkit.errors import RecipeError

SIZE_STEP_PX = 32  # of data.multi_scale


def require_fitting_images(data: Any, model: nn.Module) -> None:
    """Sides must be multiples of the model's largest stride: more than 32 where a level coarser than P5 comes out.

    Args:
        data: with ``image_hw`` and, if it draws sizes, ``multi_scale``; without them nothing is asked.
        model: with ``largest_stride``; without it nothing is asked.

    Raises:
        RecipeError: if images of the data's size do not fit.
    """
    image_hw, stride = getattr(data, "image_hw", None), getattr(model, "largest_stride", None)
    if image_hw is None or stride is None:
        return
    if any(side % stride for side in image_hw):
        nearest = [max(1, round(side / stride)) * stride for side in image_hw]
        raise RecipeError(
            f"data.image_hw must be multiples of {stride}, the model's largest stride; got {list(image_hw)}, "
            f"near it is {nearest}"
        )
    if getattr(data, "multi_scale", None) is not None and stride > SIZE_STEP_PX:
        raise RecipeError(
            f"data.multi_scale draws multiples of {SIZE_STEP_PX} pixels, but the model's largest stride is {stride}; "
            "set it to null"
        )
