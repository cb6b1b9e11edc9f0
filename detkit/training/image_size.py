"""Check that the image size of the data fits the model."""

from torch import nn

from detkit.errors import RecipeError, stride_fault
from detkit.training.parts import HasImageSize, HasLargestStride, HasMultiScale

SIZE_STEP_PX = 32  # of data.multi_scale


def require_fitting_images(data: object, model: nn.Module) -> None:
    """Both sides of an image must be multiples of the model's largest stride, e.g. 64 for a model with a level P6.

    Args:
        data: ``image_hw`` and ``multi_scale`` are checked if it has them.
        model: nothing is checked if it has no ``largest_stride``.

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
