"""The numbers of a trained detector or classifier on a data set, by the same loop as validation while training."""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from detkit.checkpoint import storing
from detkit.checkpoint.file import make_folder, replace
from detkit.errors import DataError, RecipeError
from detkit.training.image_size import require_fitting_images
from detkit.training.module import VALIDATION, DetectionModule
from detkit.training.parts import Decode, Found, ListsDetections, Metric, Parts, Predictions
from detkit.training.run.autocast import precision_here
from detkit.training.run.log_filters import filtered_logs
from detkit.training.summary import print_lines
from detkit.types import Detections, RankedClasses

FoundT = TypeVar("FoundT", Detections, RankedClasses)


class Evaluation(NamedTuple):
    """What came out; numbers that have no ground truth to measure are -1."""

    numbers: dict[str, float]  # of the metric, e.g. the twelve COCO numbers
    per_class: dict[str, float]  # by class name
    metric: Metric  # knows what the numbers mean
    is_rank_zero: bool
    detections: Path | None = None  # file for what a detector found

    def show(self, console: Console) -> None:
        """Print the numbers, on rank 0, and write the detections where a path was given."""
        if not self.is_rank_zero:
            return
        numbers = Table("number", "value", "", box=None, padding=(0, 3, 0, 0))
        classes = Table("class", self.metric.per_class_name, box=None, padding=(0, 3, 0, 0))
        for name, value in self.numbers.items():
            numbers.add_row(name, _spell(value), self.metric.meanings.get(name, ""))
        for name, value in self.per_class.items():
            classes.add_row(Text(name), _spell(value))
        console.print(numbers, classes, sep="\n\n")
        if self.detections and isinstance(self.metric, ListsDetections):
            results = self.metric.detections_json()
            with storing(self.detections):
                replace(self.detections, lambda file: file.write(json.dumps(results).encode()))
            print_lines(console, f"{len(results)} detections in {self.detections}")


def evaluate(parts: Parts, class_names: Sequence[str], detections: Path | None = None) -> Evaluation:
    """Run the model over the validation split.

    Args:
        parts: the model with its trained weights, and what is needed to evaluate it.
        class_names: of the model, in the order of its labels.
        detections: file that ``Evaluation.show`` is going to write; checked before the evaluation.

    Raises:
        DataError: if the data has a class that the model does not know.
        RecipeError: if detections are wanted of a model that names images, or in the place of a folder.
        StorageError: if nothing can be written there.
    """
    require_fitting_images(parts.data, parts.model)
    decode: Decode = parts.decode
    if tuple(class_names) != tuple(parts.data.class_names):
        decode = DecodeForClasses(decode, class_names, parts.data.class_names)
    metric = parts.metrics(ground_truth=parts.data.ground_truth())
    if detections and not isinstance(metric, ListsDetections):
        raise RecipeError(f"detections={detections}: a classifier finds no objects; leave it out")
    if detections:
        _require_writable(detections)
    module = DetectionModule(parts.model, parts.loss, decode, metric, parts.optimizer, parts.scheduler)
    bar = sys.stdout.isatty()
    with filtered_logs():
        trainer = parts.trainer(
            callbacks=[RichProgressBar()] if bar else [],
            enable_progress_bar=bar,
            enable_checkpointing=False,
            logger=False,
            precision=precision_here(parts.trainer.keywords),
            use_distributed_sampler=False,  # detkit's own sampler takes the share of its rank
            sync_batchnorm=False,
        )
        [logged] = trainer.validate(module, datamodule=parts.datamodule, verbose=False)
    numbers = {name.removeprefix(VALIDATION): value for name, value in logged.items()}
    return Evaluation(numbers, metric.per_class(), metric, trainer.is_global_zero, detections)


class DecodeForClasses:
    """A decoder whose labels are the classes of a data set: by name, those of no such class fall away.

    Args:
        decode: raw predictions to detections or ranked classes, in the model's classes.
        model_names: the model's class names, in the order of its labels.
        data_names: the class names of the data.

    Raises:
        DataError: if the data has a class that the model does not know.
    """

    def __init__(
        self,
        decode: Decode,
        model_names: Sequence[str],
        data_names: Sequence[str],
    ) -> None:
        unknown = [name for name in data_names if name not in model_names]
        if unknown:
            raise DataError(
                f"{len(unknown)} of the {len(data_names)} classes of the data are unknown to the model: "
                f"{', '.join(unknown[:10])}; it knows {', '.join(model_names)}"
            )
        self.decode = decode
        labels = {name: label for label, name in enumerate(data_names)}
        self.label_of = torch.tensor([labels.get(name, -1) for name in model_names])

    def __call__(self, predictions: Predictions) -> list[Found]:
        """What was found in each image, in the classes of the data."""
        return [self._of_image(found) for found in self.decode(predictions)]

    def _of_image(self, found: FoundT) -> FoundT:
        labels = self.label_of.to(found.labels.device)[found.labels]
        known = labels >= 0
        return type(found)(*(values[known] for values in found._replace(labels=labels)))


def _require_writable(path: Path) -> None:
    if path.is_dir():
        raise RecipeError(f"detections={path}: is a folder; name a file in it, e.g. {path / 'found.json'}")
    with storing(path):
        make_folder(path.parent)
        tempfile.TemporaryFile(dir=path.parent).close()


def _spell(value: float) -> str:
    return "n/a" if value < 0 else f"{value:.4f}"
