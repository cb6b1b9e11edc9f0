"""The toy squares with one class for the whole image: what a classifier is trained on."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detkit.decode import ClassDecode
from detkit.losses import ClassificationLoss
from detkit.metrics import Accuracy
from detkit.training import CheckpointSettings, Parts
from detkit.types import Batch, ClassBatch, ClassTruth, ImageLabels
from tests.helpers.toy import CLASSES, SIZE, ToyData, collate, toy_parts


class ToyClasses(ToyData):
    """The squares of ToyData, of which only the colour is to be named."""

    def ground_truth(self) -> ClassTruth:  # type: ignore[override]
        labels = super().ground_truth().labels
        return ClassTruth(CLASSES, np.array([1, 5, 7]), np.bincount(labels, minlength=len(CLASSES)))

    def train_dataloader(self) -> DataLoader[Any]:
        return _named(super().train_dataloader())

    def val_dataloader(self) -> DataLoader[Any]:
        return _named(super().val_dataloader())


class ToyClassifier(nn.Module):
    """A few numbers from each image; with batch norm, whose state must survive."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(SIZE // 4))
        self.class_logits = nn.Linear(8, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.class_logits(self.body(images).flatten(1))


def toy_class_parts(runs: Path, *, epochs: int = 3, **given: Any) -> Parts:
    """As ``toy_parts``, for a classifier."""
    data = given.pop("data", None) or ToyClasses()
    checkpoint = {"monitor": "val/top1"} | given.pop("checkpoint", {})
    parts = toy_parts(runs, data=data, epochs=epochs, **given)
    torch.manual_seed(0)
    return parts._replace(
        model=ToyClassifier(),
        loss=ClassificationLoss(),
        decode=ClassDecode(),
        metrics=Accuracy,
        checkpoint=CheckpointSettings(**checkpoint),
    )


def _named(loader: DataLoader[Any]) -> DataLoader[Any]:
    return DataLoader(loader.dataset, batch_sampler=loader.batch_sampler, collate_fn=_collate)


def _collate(samples: list[tuple[Tensor, Any]]) -> ClassBatch:
    batch: Batch = collate(samples)
    return ClassBatch(batch.images, ImageLabels(batch.targets.labels, batch.targets.image_ids))  # one of each image
