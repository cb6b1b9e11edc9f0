"""Evaluate a detector (the twelve COCO numbers, detections as COCO JSON) or a classifier (top-1, top-5), by class.

detkit evaluate checkpoint=runs/NAME/TIME data.root=/data/coco detections=found.json
detkit evaluate checkpoint=detector.safetensors split=test metrics.engine=pycocotools
Every key of the stored recipe can be set; of the model, model.head.inference_layers and inference_queries of RT-DETR.
trusted=my_package lets it name your classes.
"""

from pathlib import Path
from typing import Literal, NamedTuple

from detkit import recipe
from detkit.recipe.options import read_options_and_rest


class Options(NamedTuple):  # all other keys are the stored recipe's
    checkpoint: str
    split: Literal["train", "val", "test"] = "val"
    detections: Path | None = None  # COCO JSON of what is found
    trusted: tuple[str, ...] = ()  # packages


def main(argv: list[str]) -> None:
    """Rebuild the model and its data from what is stored, validate, and show the numbers."""
    if not argv or {"-h", "--help"} & set(argv):
        print(__doc__)
        return
    options, overrides = read_options_and_rest(Options, argv, {"checkpoint": "runs/NAME/TIME"}, prefixes=[""])
    from detkit import inference, training  # torch and lightning, after the arguments were found right

    stored = inference.read_stored(options.checkpoint)
    parts = recipe.build(stored.plan(overrides, options.split, options.trusted))
    stored.load_into(parts.model, options.trusted)
    training.evaluate(parts, stored.class_names, options.detections).show(recipe.console())
