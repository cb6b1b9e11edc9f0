"""An answer to what was asked about a model."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from detkit.inspection.options import Options

if TYPE_CHECKING:
    from torch import nn

    from detkit.data import Resize


def look(
    model: "nn.Module", image_hw: tuple[int, int], options: Options, resize: "Resize" = "letterbox"
) -> RenderableType:
    """What rich prints: the weights of these names, where the picture lies, or the table of parts.

    Args:
        model: any; a picture needs a backbone or a neck.
        image_hw: size of the image that it runs on, pixels.
        options: what is asked for.
        resize: how an image comes to that size.

    Raises:
        RecipeError: if an option does not fit the model.
        DataError: if the image cannot be read.
    """
    from detkit.inspection import features, measure, tables, weights

    if options.image:
        image = Path(options.image).expanduser()
        features.write_features(model, image, image_hw, options.channels, options.out, resize)
        return Text(f"feature maps of {options.image} at {image_hw[0]} x {image_hw[1]} pixels: {options.out}")
    if options.names:
        return tables.weights_table(weights.find_weights(model, options.names.split(",")))
    note = "" if options.checkpoint else f"; {options.classes} classes where the recipe leaves them open (classes=)"
    return tables.anatomy_table(measure.measure(model, image_hw, options.depth), note)
