"""Look at a model: its parts and what they cost, its weights, its feature maps. No data is read.

detkit inspect recipe=yolo_csp_n depth=2 classes=3         (80 classes by default)
detkit inspect checkpoint=detector.safetensors trusted=my_package names=*.bias
detkit inspect checkpoint=runs/NAME/TIME features image=photo.jpg out=features.jpg
"""

from detkit import recipe
from detkit.inspection import look, read_options


def main(argv: list[str]) -> None:
    """Build the model alone and show what is asked for."""
    if not argv or {"-h", "--help"} & set(argv):
        return recipe.console().print(__doc__, recipe.list_recipes(), markup=False)
    options, overrides = read_options(argv)
    plan = None if options.checkpoint else recipe.without_demo(recipe.load(overrides))
    from detkit import inference, weights  # torch, after the arguments were found right
    from detkit.training.optim.fine_tuning import FineTuning

    if plan is None:
        start = [("weights", options.checkpoint), ("weights_except", [])]
        stored = inference.read_stored(options.checkpoint)
        plan = stored.model_plan([*recipe.parse(overrides), *start], options.trusted.split(","))
    model = recipe.build_model(plan, options.classes)
    if plan.config["weights"] and options.needs_weights:
        print(weights.load_weights(plan.config["weights"], model, leave_out=plan.config["weights_except"]))
    FineTuning(model, plan.config["freeze"])
    return recipe.console().print(look(model, recipe.image_hw_of(plan), options, recipe.resize_of(plan)))
