"""The COCO numbers of a trained detector on a data set, by the same loop as validation while training."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from detkit.errors import DataError
from detkit.training.module import DetectionModule
from detkit.training.precision import precision_here
from detkit.training.quiet import quiet
from detkit.types import Detections

MEANINGS = {
    "AP": "mean over IoU 0.50, 0.55, .. 0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "AP_small": "objects below 32 x 32 pixels",
    "AP_medium": "objects from 32 x 32 to 96 x 96 pixels",
    "AP_large": "objects above 96 x 96 pixels",
    "AR_1": "recall with 1 detection an image",
    "AR_10": "recall with 10 detections an image",
    "AR_100": "recall with 100 detections an image",
    "AR_small": "recall of small objects",
    "AR_medium": "recall of medium objects",
    "AR_large": "recall of large objects",
}


class Evaluation(NamedTuple):
    """What came out; numbers that have no ground truth to measure are -1."""

    numbers: dict[str, float]  # the twelve COCO numbers
    per_class: dict[str, float]  # AP by class name
    metric: Any  # its detections_json() gives what was found as COCO results
    is_rank_zero: bool

    def show(self, console: Console, detections: str = "") -> None:
        """Print the numbers, on rank 0, and write the detections where a path is given."""
        if not self.is_rank_zero:
            return
        numbers = Table("COCO", "value", "", box=None, padding=(0, 3, 0, 0))
        classes = Table("class", "AP", box=None, padding=(0, 3, 0, 0))
        for name, value in self.numbers.items():
            numbers.add_row(name, _spell(value), MEANINGS.get(name, ""))
        for name, value in self.per_class.items():
            classes.add_row(Text(name), _spell(value))
        console.print(numbers, classes, sep="\n\n")
        if detections:
            path = Path(detections).expanduser()
            path.parent.mkdir(parents=True, exist_ok=True)
            results = self.metric.detections_json()
            path.write_text(json.dumps(results))
            console.print(f"{len(results)} detections in {path}", soft_wrap=True, highlight=False, markup=False)


def evaluate(parts: Any, class_names: Sequence[str]) -> Evaluation:
    """Run the detector over the validation split.

    Args:
        parts: of a recipe, the model with its trained weights.
        class_names: of the detector, in the order of its labels.

    Raises:
        DataError: if the data has a class that the detector does not know.
    """
    decode = parts.decode
    if tuple(class_names) != tuple(parts.data.class_names):
        decode = DecodeForClasses(decode, class_names, parts.data.class_names)
    metric = parts.metrics(ground_truth=parts.data.ground_truth())
    module = DetectionModule(parts.model, parts.loss, decode, metric, parts.optimizer, parts.scheduler)
    bar = sys.stdout.isatty()
    with quiet():
        trainer = parts.trainer(
            callbacks=[RichProgressBar()] if bar else [],
            enable_progress_bar=bar,
            enable_checkpointing=False,
            logger=False,
            precision=precision_here(parts.trainer.keywords),
            use_distributed_sampler=False,  # detkit's own sampler takes the share of its rank
            sync_batchnorm=False,
        )
        [logged] = trainer.validate(module, datamodule=parts.data, verbose=False)
    numbers = {name.removeprefix("val/"): value for name, value in logged.items()}
    return Evaluation(numbers, metric.per_class(), metric, trainer.is_global_zero)


class DecodeForClasses:
    """A decoder whose labels are the classes of a data set: by name, those of no such class fall away.

    Args:
        decode: raw predictions to detections, in the detector's classes.
        detector_names: the detector's class names, in the order of its labels.
        data_names: the class names of the data.

    Raises:
        DataError: if the data has a class that the detector does not know.
    """

    def __init__(
        self,
        decode: Callable[[Any], list[Detections]],
        detector_names: Sequence[str],
        data_names: Sequence[str],
    ) -> None:
        unknown = [name for name in data_names if name not in detector_names]
        if unknown:
            raise DataError(
                f"{len(unknown)} of the {len(data_names)} classes of the data are unknown to the detector: "
                f"{', '.join(unknown[:10])}; it knows {', '.join(detector_names)}"
            )
        self.decode = decode
        labels = {name: label for label, name in enumerate(data_names)}
        self.label_of = torch.tensor([labels.get(name, -1) for name in detector_names])

    def __call__(self, predictions: Any) -> list[Detections]:
        """Detections of each image, in the classes of the data."""
        return [self._of_image(detections) for detections in self.decode(predictions)]

    def _of_image(self, detections: Detections) -> Detections:
        labels = self.label_of.to(detections.labels.device)[detections.labels]
        known = labels >= 0
        return Detections(detections.boxes[known], detections.scores[known], labels[known])


def _spell(value: float) -> str:
    return "n/a" if value < 0 else f"{value:.4f}"
