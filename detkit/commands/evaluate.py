"""Evaluate a detector (the twelve COCO numbers) or a classifier (top-1, top-5), over all classes and for each.

detkit evaluate checkpoint=runs/NAME/TIME data.root=/data/coco detections=found.json
detkit evaluate checkpoint=detector.safetensors split=test metrics.engine=pycocotools
All other keys are those of the stored recipe. Of the model only model.head.inference_layers and inference_queries of
RT-DETR can be changed.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from detkit import recipe
from detkit.commands.help import asks_for_help, print_help
from detkit.errors import CheckpointError
from detkit.recipe.options import read_options


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of ``detkit evaluate``.

    Args:
        checkpoint: a run's folder, a detector file or an exported detector.
        split: split of the data.
        detections: file for the detections as COCO JSON; null: no file.
        trusted: packages whose classes the checkpoint may use.
    """

    checkpoint: str = field(metadata={"example": "runs/NAME/TIME", "exists": CheckpointError})
    split: Literal["train", "val", "test"] = "val"
    detections: Path | None = None
    trusted: tuple[str, ...] = ()


def main(argv: list[str]) -> None:
    """Evaluate, and print the numbers."""
    if not argv or asks_for_help(argv):
        return print_help(__doc__, EvaluateOptions)
    options, overrides = read_options(EvaluateOptions, argv, prefixes=[""])
    from detkit.api import evaluate  # imports torch, so only after the checks

    evaluation = evaluate(
        options.checkpoint,
        overrides,
        split=options.split,
        trusted=options.trusted,
        detections=options.detections,
    )
    return evaluation.show(recipe.console())
