"""Losses: predictions and targets to named, weighted terms."""

from detkit.losses.cross_entropy import ClassificationLoss
from detkit.losses.detr import DETRLoss
from detkit.losses.yolo import YOLOLoss
from detkit.losses.yolox import YOLOXLoss

__all__ = ["ClassificationLoss", "DETRLoss", "YOLOLoss", "YOLOXLoss"]
