"""The parts of a run, and the interface that each of them must have."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, TypedDict, runtime_checkable

import lightning as L
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from detkit import __version__
from detkit.training.settings import CheckpointSettings, RunMetadata, RunSettings
from detkit.types import ClassTruth, GroundTruth

Predictions = Any  # raw outputs of a model; their type is known to its loss and its decoder
BatchTargets = Any  # Targets, or ImageLabels of a classifier
ImageResult = Any  # of one image: Detections, or RankedClasses of a classifier
ParameterGroup = dict[str, Any]  # for torch's optimizers: "params" and the settings of the group


class Loss(Protocol):
    """Raw predictions and targets to named, weighted scalars; training minimises their sum."""

    def __call__(self, predictions: Predictions, targets: BatchTargets, /) -> dict[str, Tensor]: ...


class Decode(Protocol):
    """Raw predictions of a batch to the result of each image."""

    def __call__(self, predictions: Predictions, /) -> list[ImageResult]: ...


class Metric(Protocol):
    """Computes numbers from the results of an epoch on all ranks, and describes how to show them."""

    per_class_name: ClassVar[str]  # the number that per_class gives, e.g. AP
    shown: ClassVar[Mapping[str, tuple[str, ...]]]  # heading to names of numbers, for the log line of an epoch
    meanings: ClassVar[Mapping[str, str]]  # meaning of each number, in the order of compute

    def update(self, results: Sequence[ImageResult], targets: BatchTargets, /) -> None: ...
    def compute(self) -> dict[str, Tensor]: ...
    def per_class(self) -> dict[str, float]: ...
    def reset(self) -> None: ...


class MakeMetric(Protocol):
    """Makes the metric for the ground truth of a data set."""

    def __call__(self, *, ground_truth: Any) -> Metric: ...


class MakeOptimizer(Protocol):
    """Makes the optimizer of groups of parameters."""

    def __call__(self, groups: list[ParameterGroup], /) -> Optimizer: ...


class MakeScheduler(Protocol):
    """Makes the learning-rate scheduler, which is stepped once per optimizer step."""

    def __call__(self, optimizer: Optimizer, /, *, steps_per_epoch: int, total_steps: int) -> LRScheduler: ...


class DataModule(Protocol):
    """A ``LightningDataModule`` with class names and ground truth."""

    @property
    def class_names(self) -> Sequence[str]: ...
    @property
    def fingerprint(self) -> str: ...  # changes when images, boxes or classes change
    def ground_truth(self) -> GroundTruth | ClassTruth: ...  # of the validation split


class Parts(NamedTuple):
    """The parts of a run or an evaluation."""

    settings: RunSettings
    data: DataModule
    model: nn.Module  # images (B, 3, H, W) to raw predictions
    loss: Loss
    decode: Decode
    metrics: MakeMetric
    optimizer: MakeOptimizer
    scheduler: MakeScheduler
    checkpoint: CheckpointSettings
    trainer: functools.partial[L.Trainer]  # called with the callbacks, loggers and plugins of the run

    @property
    def datamodule(self) -> L.LightningDataModule:
        """``data`` as a ``LightningDataModule``."""
        assert isinstance(self.data, L.LightningDataModule), "data must be a LightningDataModule"
        return self.data

    def metadata(self) -> RunMetadata:
        """The metadata of this run's detector file."""
        return {
            "recipe": self.settings.recipe,
            "class_names": list(self.data.class_names),
            "category_ids": self.data.ground_truth().category_ids.tolist(),
            "image_hw": list(self.settings.image_hw),
            "data_fingerprint": self.data.fingerprint,
            "detkit_version": __version__,
        }


class TrainingOutput(TypedDict):
    """The output of a training step, which callbacks receive."""

    loss: Tensor  # to minimise
    terms: dict[str, Tensor]  # of the loss, without gradients


class ValidationOutput(TypedDict):
    """The output of a validation step, which callbacks receive."""

    detections: list[ImageResult]  # one per image


# Optional properties of parts.


@runtime_checkable
class TakesTargets(Protocol):
    """A model whose forward may take the targets as its second argument in training."""

    takes_targets: bool


@runtime_checkable
class HasLargestStride(Protocol):
    """A model that needs images whose sides are multiples of its largest stride."""

    largest_stride: int  # pixels


@runtime_checkable
class HasImageSize(Protocol):
    """Data whose images all have the same size."""

    image_hw: tuple[int, int]


@runtime_checkable
class HasMultiScale(Protocol):
    """Data that may draw the size of each training batch at random."""

    multi_scale: tuple[float, float] | None  # smallest and largest factor; None: one size


@runtime_checkable
class ListsDetections(Protocol):
    """A metric that gives its detections as COCO results."""

    def detections_json(self) -> list[dict[str, Any]]: ...
