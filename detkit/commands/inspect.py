"""Show a model: the cost of its parts, its weights, or its feature maps. No data is read.

detkit inspect recipe=yolo_csp_n depth=2 classes=3
detkit inspect checkpoint=detector.safetensors trusted=my_package names=*.bias
detkit inspect checkpoint=runs/NAME/TIME features image=photo.jpg out=features.jpg
All other keys are those of the recipe, or of the recipe in the checkpoint.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import RenderableType
from rich.text import Text

from detkit import recipe
from detkit.commands.help import asks_for_help, print_help
from detkit.errors import CheckpointError, DataError, RecipeError
from detkit.recipe import Plan
from detkit.recipe.options import Between, read_options

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class InspectOptions:
    """The options of ``detkit inspect``: a table of parts, a table of weights, or a picture of feature maps.

    Args:
        checkpoint: a run's folder or a detector file; without it the recipe.
        recipe: a name from the list of recipes, or a path to a .yaml file.
        trusted: packages whose classes the recipe or the checkpoint may use.
        classes: number of classes if the recipe takes it from the data.
        depth: levels of the table; 0 shows the parts, 1 also their children.
        names: show the weights with these names instead: patterns, separated by commas.
        features: draw the feature maps of an image instead.
        image: image file for the feature maps.
        channels: channels of each level in the picture.
        out: file for the picture.
    """

    checkpoint: str = field(default="", metadata={"exists": CheckpointError})
    recipe: str = ""
    trusted: tuple[str, ...] = ()
    classes: Annotated[int, Between(1)] = 80
    depth: Annotated[int, Between(0)] = 1
    names: str = ""
    features: bool = False
    image: str = field(default="", metadata={"exists": DataError})
    channels: Annotated[int, Between(1)] = 16
    out: Path = Path("features.jpg")

    @property
    def needs_weights(self) -> bool:
        """Whether the weights of a recipe are loaded. The cost of its parts does not depend on them."""
        return bool(self.names or self.image)


def main(argv: list[str]) -> None:
    """Build the model and show the requested view."""
    if not argv or asks_for_help(argv):
        print_help(__doc__, InspectOptions)
        return recipe.console().print("", recipe.list_recipes())
    options, overrides = read_options(InspectOptions, argv, prefixes=[""])
    if options.features and not options.image:
        raise RecipeError("image: is missing; give an image file, e.g. features image=photo.jpg")
    plan = None
    if not options.checkpoint:
        plan = recipe.without_demo(recipe.load_recipe(options.recipe, overrides, options.trusted))
        recipe.check_names(plan)
    from detkit import inference, weights  # imports torch, so only after the checks
    from detkit.training.optim.fine_tuning import FineTuning

    if plan is None:
        stored = inference.read_stored(options.checkpoint)
        plan = stored.model_plan(overrides, options.trusted)
        model = stored.build_model(options.trusted, plan.config["model"])
    else:
        model = recipe.build_model(plan, options.classes)
        if plan.config["weights"] and options.needs_weights:
            print(weights.load_weights(plan.config["weights"], model, leave_out=plan.config["weights_except"]))
    FineTuning(model, plan.config["freeze"])
    return recipe.console().print(_view(model, plan, options))


def _view(model: "nn.Module", plan: Plan, options: InspectOptions) -> RenderableType:
    """The requested view."""
    from detkit.inspection import features, measure, tables, weights

    image_hw = recipe.image_hw_of(plan)
    if options.image:
        image = Path(options.image).expanduser()
        features.write_features(model, image, image_hw, options.channels, options.out, recipe.resize_of(plan))
        return Text(f"feature maps of {options.image} at {image_hw[0]} x {image_hw[1]} pixels: {options.out}")
    if options.names:
        return tables.weights_table(weights.find_weights(model, options.names.split(",")))
    note = "" if options.checkpoint else f"; {options.classes} classes, as the recipe sets no number (classes=)"
    return tables.anatomy_table(measure.measure_parts(model, image_hw, options.depth), note)
