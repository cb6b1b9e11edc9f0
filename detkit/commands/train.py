"""Train a detector or a classifier from a recipe.

detkit train                              lists the recipes
detkit train recipe=yolo_csp --help       lists the keys of one
detkit train recipe=yolo_csp data.root=/data/coco trainer.max_epochs=100 seed=1
detkit train recipe=yolo_csp trainer.callbacks+={_target_: my_package.MyCallback}
detkit train resume=runs/NAME/TIME
All other keys are the recipe's: key.path=value sets one, key.path+=value appends to a list.
"""

from dataclasses import dataclass

from detkit import recipe  # check imports torch, so the names are checked first
from detkit.commands.help import print_help
from detkit.recipe.options import read_options


@dataclass(frozen=True)
class TrainOptions:
    """The options of ``detkit train``.

    Args:
        recipe: a name from the list, or a path to a .yaml file; without it the recipe of the run in resume=FOLDER.
        trusted: packages whose classes the recipe may use, besides detkit's and those in the working directory.
    """

    recipe: str = ""
    trusted: tuple[str, ...] = ()


def main(argv: list[str]) -> None:
    """Load, check and build the recipe, then train."""
    arguments = [argument for argument in argv if argument not in ("-h", "--help")]
    output = recipe.console()
    if not arguments:
        print_help(__doc__, TrainOptions)
        output.print("", recipe.list_recipes())
        return
    options, overrides = read_options(TrainOptions, arguments, prefixes=[""])
    plan = recipe.load_recipe(options.recipe, overrides, options.trusted)
    recipe.check_names(plan)
    recipe.check(plan)
    if arguments != argv:
        output.print(recipe.list_keys(plan))
        return
    from lightning.pytorch.utilities import rank_zero_only

    from detkit.api import train_plan

    rank_zero_only(output.print)(recipe.list_changes(plan))
    train_plan(plan)
