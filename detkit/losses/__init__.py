"""Losses: predictions and targets to named, weighted terms."""

from detkit.losses.yolo import YOLOLoss
from detkit.losses.yolox import YOLOXLoss

__all__ = ["YOLOLoss", "YOLOXLoss"]
