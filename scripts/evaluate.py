"""Evaluate a detector (the twelve COCO numbers, detections as COCO JSON) or a classifier (top-1, top-5), by class.

python scripts/evaluate.py checkpoint=runs/NAME/TIME data.root=/data/coco detections=found.json
python scripts/evaluate.py checkpoint=detector.safetensors split=test metrics.engine=pycocotools
Every key of the stored recipe can be set, of the model RT-DETR's model.head.inference_layers and inference_queries
alone. trusted=my_package lets it name your classes.
"""

from detkit import recipe
from detkit.errors import RecipeError, run_script

OPTIONS = {"checkpoint": "", "split": "val", "detections": "", "trusted": ""}


def main(argv: list[str]) -> None:
    """Rebuild the model and its data from what is stored, validate, and show the numbers."""
    if not argv or {"-h", "--help"} & set(argv):
        print(__doc__)
        return
    given = recipe.parse(argv)
    options = OPTIONS | {key: str(value) for key, value in given if key in OPTIONS}
    if not options["checkpoint"]:
        raise RecipeError("checkpoint: is missing; name a run's folder or a detector file, e.g. checkpoint=runs/...")
    from detkit import inference, training  # torch and lightning, after the arguments were found right

    stored = inference.read_stored(options["checkpoint"])
    overrides = [pair for pair in given if pair[0] not in OPTIONS]
    parts = recipe.build(stored.plan(overrides, options["split"], options["trusted"].split(",")))
    stored.load_into(parts.model)
    training.evaluate(parts, stored.class_names, options["detections"]).show(recipe.console())


if __name__ == "__main__":
    run_script(main)
