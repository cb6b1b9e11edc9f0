"""Train a detector from a recipe.

detkit train                           lists the recipes
detkit train recipe=yolo_csp --help    lists the keys of one
detkit train recipe=yolo_csp data.root=/data/coco trainer.max_epochs=100 seed=1
"""

from detkit import recipe  # torch and lightning are imported by check, after the arguments were found right


def main(argv: list[str]) -> None:
    """Load, check and build the recipe, then train."""
    arguments = [argument for argument in argv if argument not in ("-h", "--help")]
    output = recipe.console()
    if not arguments:
        output.print(__doc__, recipe.list_recipes())
        return
    plan = recipe.load(arguments)
    recipe.check(plan)
    if arguments != argv:
        output.print(recipe.list_keys(plan))
        return
    from lightning.pytorch.utilities import rank_zero_only

    from detkit.training import train
    from detkit.weights import load_weights

    rank_zero_only(output.print)(recipe.list_changes(plan))
    train(recipe.build(plan), load_weights)
