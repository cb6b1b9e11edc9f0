"""The parts of a run, and what each of them must promise."""

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

Predictions = Any  # raw outputs of a model; its loss and its decoder know their type
BatchTargets = Any  # of a batch: Targets, or ImageLabels of a classifier
Found = Any  # in one image: Detections, or RankedClasses of a classifier
ParameterGroup = dict[str, Any]  # as torch's optimizers take it: "params" and the group's own settings


class Loss(Protocol):
    """Named scalars, already weighted: their sum is what training minimises."""

    def __call__(self, predictions: Predictions, targets: BatchTargets, /) -> dict[str, Tensor]: ...


class Decode(Protocol):
    """Raw predictions of a batch to what was found in each image."""

    def __call__(self, predictions: Predictions, /) -> list[Found]: ...


class Metric(Protocol):
    """Gathers what was found over an epoch, on all ranks, and says how its numbers are shown."""

    per_class_name: ClassVar[str]  # what per_class measures, e.g. AP
    shown: ClassVar[Mapping[str, tuple[str, ...]]]  # in the line of an epoch: heading to numbers
    meanings: ClassVar[Mapping[str, str]]  # of each number, in the order of compute

    def update(self, found: Sequence[Found], targets: BatchTargets, /) -> None: ...
    def compute(self) -> dict[str, Tensor]: ...
    def per_class(self) -> dict[str, float]: ...
    def reset(self) -> None: ...


class MakeMetric(Protocol):
    """The metric of a data set's ground truth."""

    def __call__(self, *, ground_truth: Any) -> Metric: ...


class MakeOptimizer(Protocol):
    """The optimizer of these groups of parameters."""

    def __call__(self, groups: list[ParameterGroup], /) -> Optimizer: ...


class MakeScheduler(Protocol):
    """The learning rate over the steps of a run; it is stepped once per optimizer step."""

    def __call__(self, optimizer: Optimizer, /, *, steps_per_epoch: int, total_steps: int) -> LRScheduler: ...


class DataModule(Protocol):
    """A ``LightningDataModule`` that knows its classes and its ground truth."""

    @property
    def class_names(self) -> Sequence[str]: ...
    @property
    def fingerprint(self) -> str: ...  # changes when images, boxes or classes change
    def ground_truth(self) -> GroundTruth | ClassTruth: ...  # of the validation split


class Parts(NamedTuple):
    """All that a run or an evaluation is made of."""

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
        """The data as Lightning takes them."""
        assert isinstance(self.data, L.LightningDataModule), "data must be a LightningDataModule"
        return self.data

    def metadata(self) -> RunMetadata:
        """What a detector file of this run holds beside its weights."""
        return {
            "recipe": self.settings.recipe,
            "class_names": list(self.data.class_names),
            "category_ids": self.data.ground_truth().category_ids.tolist(),
            "image_hw": list(self.settings.image_hw),
            "data_fingerprint": self.data.fingerprint,
            "detkit_version": __version__,
        }


class TrainingOutput(TypedDict):
    """What callbacks get of a training step."""

    loss: Tensor  # to minimise
    terms: dict[str, Tensor]  # of it, without gradients


class ValidationOutput(TypedDict):
    """What callbacks get of a validation step."""

    detections: list[Found]  # of each image


# What a part may offer beside its promise.


@runtime_checkable
class TakesTargets(Protocol):
    """A model whose forward takes the targets as its second argument while it trains, if this is true."""

    takes_targets: bool


@runtime_checkable
class HasLargestStride(Protocol):
    """A model that takes images whose sides are multiples of this."""

    largest_stride: int  # pixels


@runtime_checkable
class HasImageSize(Protocol):
    """Data whose images all have one size."""

    image_hw: tuple[int, int]


@runtime_checkable
class HasMultiScale(Protocol):
    """Data that draw the size of each training batch, if this is not None."""

    multi_scale: tuple[float, float] | None


@runtime_checkable
class ListsDetections(Protocol):
    """A metric that gives what was found as COCO results."""

    def detections_json(self) -> list[dict[str, Any]]: ...
