"""Heads: feature maps to raw predictions. They never decode and never compute a loss."""

from detkit.models.heads.linear import LinearHead
from detkit.models.heads.rtdetr import RTDETRHead
from detkit.models.heads.yolo import YOLOHead

__all__ = ["LinearHead", "RTDETRHead", "YOLOHead"]
