"""Detect objects in images and videos: annotated pictures, COCO JSON, CSV, YOLO-txt, counts and speed.

detkit predict checkpoint=runs/NAME/TIME source=photos
detkit predict checkpoint=detector.safetensors source='photos/**/*.jpg' save=coco,csv out=found
detkit predict checkpoint=detector.safetensors source=clip.mp4 score_threshold=0.5
detkit predict checkpoint=detector.safetensors source=0                     a camera, until Ctrl-C
detkit predict checkpoint=detector.safetensors source=photos slices=640 overlap=0.2 flip=true
"""

from detkit import recipe
from detkit.commands.help import asks_for_help, print_help
from detkit.inference.predict.options import PredictOptions
from detkit.recipe.options import read_options


def main(argv: list[str]) -> None:
    """Apply the detector to all images, and print the counts and the written files."""
    if not argv or asks_for_help(argv):
        return print_help(__doc__, PredictOptions)
    options, _ = read_options(PredictOptions, argv)
    from detkit.inference.predict.run import prepare  # imports torch, so only after the checks

    return prepare(options).run(recipe.console())
