"""Evaluate a trained detector or classifier with the validation loop of training."""

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

from detkit.checkpoint import storage_errors
from detkit.checkpoint.file import make_folder, replace
from detkit.errors import DataError, RecipeError
from detkit.training.image_size import require_fitting_images
from detkit.training.module import VALIDATION, DetectionModule
from detkit.training.parts import Decode, ImageResult, ListsDetections, Metric, Parts, Predictions
from detkit.training.run.autocast import supported_precision
from detkit.training.run.log_filters import filtered_logs
from detkit.training.summary import print_lines
from detkit.types import Detections, RankedClasses

ResultT = TypeVar("ResultT", Detections, RankedClasses)


class Evaluation(NamedTuple):
    """The numbers of an evaluation; a number without ground truth to measure is -1."""

    numbers: dict[str, float]  # of the metric, e.g. the twelve COCO numbers
    per_class: dict[str, float]  # by class name
    metric: Metric  # explains the numbers
    is_rank_zero: bool
    detections: Path | None = None  # file that ``show`` writes the detections to

    def show(self, console: Console) -> None:
        """Print the numbers and write the file of detections, on rank 0."""
        if not self.is_rank_zero:
            return
        numbers = Table("number", "value", "", box=None, padding=(0, 3, 0, 0))
        classes = Table("class", self.metric.per_class_name, box=None, padding=(0, 3, 0, 0))
        for name, value in self.numbers.items():
            numbers.add_row(name, _format_value(value), self.metric.meanings.get(name, ""))
        for name, value in self.per_class.items():
            classes.add_row(Text(name), _format_value(value))
        console.print(numbers, classes, sep="\n\n")
        if self.detections and isinstance(self.metric, ListsDetections):
            results = self.metric.detections_json()
            with storage_errors(self.detections):
                replace(self.detections, lambda file: file.write(json.dumps(results).encode()))
            print_lines(console, f"{len(results)} detections in {self.detections}")


def evaluate(parts: Parts, class_names: Sequence[str], detections: Path | None = None) -> Evaluation:
    """Run the model over the validation split.

    Args:
        parts: parts of a run, with trained weights in the model.
        class_names: class names of the model, in the order of its labels.
        detections: file that ``Evaluation.show`` writes; whether it can be written is checked first.

    Raises:
        DataError: if the data has a class that the model does not have.
        RecipeError: if ``detections`` is given for a classifier, or is the path of a folder.
        StorageError: if the file cannot be written.
    """
    require_fitting_images(parts.data, parts.model)
    decode: Decode = parts.decode
    if tuple(class_names) != tuple(parts.data.class_names):
        decode = DecodeForClasses(decode, class_names, parts.data.class_names)
    metric = parts.metrics(ground_truth=parts.data.ground_truth())
    if detections and not isinstance(metric, ListsDetections):
        raise RecipeError(f"detections={detections}: a classifier detects no objects; leave this option out")
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
            precision=supported_precision(parts.trainer.keywords),
            use_distributed_sampler=False,  # detkit's sampler yields the images of its rank
            sync_batchnorm=False,
        )
        [logged] = trainer.validate(module, datamodule=parts.datamodule, verbose=False)
    numbers = {name.removeprefix(VALIDATION): value for name, value in logged.items()}
    return Evaluation(numbers, metric.per_class(), metric, trainer.is_global_zero, detections)


class DecodeForClasses:
    """A decoder with the class indices of a data set, matched by name. Results of other classes are removed.

    Args:
        decode: raw predictions to detections or ranked classes, with the class indices of the model.
        model_names: class names of the model, in the order of its labels.
        data_names: class names of the data.

    Raises:
        DataError: if the data has a class that the model does not have.
    """

    def __init__(self, decode: Decode, model_names: Sequence[str], data_names: Sequence[str]) -> None:
        unknown = [name for name in data_names if name not in model_names]
        if unknown:
            raise DataError(
                f"{len(unknown)} of the {len(data_names)} classes of the data are unknown to the model: "
                f"{', '.join(unknown[:10])}; it has {', '.join(model_names)}"
            )
        self.decode = decode
        labels = {name: label for label, name in enumerate(data_names)}
        self.label_of = torch.tensor([labels.get(name, -1) for name in model_names])

    def __call__(self, predictions: Predictions) -> list[ImageResult]:
        """The result of each image, with the class indices of the data."""
        return [self._of_image(found) for found in self.decode(predictions)]

    def _of_image(self, found: ResultT) -> ResultT:
        labels = self.label_of.to(found.labels.device)[found.labels]
        known = labels >= 0
        return type(found)(*(values[known] for values in found._replace(labels=labels)))


def _require_writable(path: Path) -> None:
    if path.is_dir():
        raise RecipeError(f"detections={path}: is a folder; give the path of a file in it, e.g. {path / 'found.json'}")
    with storage_errors(path):
        make_folder(path.parent)
        tempfile.TemporaryFile(dir=path.parent).close()


def _format_value(value: float) -> str:
    return "n/a" if value < 0 else f"{value:.4f}"
