"""Whether images of the data's size fit a model."""

from torch import nn

from detkit.errors import RecipeError, stride_fault
from detkit.training.parts import HasImageSize, HasLargestStride, HasMultiScale

SIZE_STEP_PX = 32  # of data.multi_scale


def require_fitting_images(data: object, model: nn.Module) -> None:
    """Sides must be multiples of the model's largest stride, which is more than 32 if the model has a level P6.

    Args:
        data: checked if it has ``image_hw``; ``multi_scale`` too, if it has that.
        model: checked if it has ``largest_stride``.

    Raises:
        RecipeError: if images of the data's size do not fit.
    """
    if not isinstance(data, HasImageSize) or not isinstance(model, HasLargestStride):
        return
    stride = model.largest_stride
    if fault := stride_fault(data.image_hw, stride):
        raise RecipeError(f"data.image_hw: {fault}")
    if isinstance(data, HasMultiScale) and data.multi_scale is not None and stride > SIZE_STEP_PX:
        raise RecipeError(
            f"data.multi_scale draws multiples of {SIZE_STEP_PX} pixels, but the model's largest stride is {stride}; "
            "set it to null"
        )
