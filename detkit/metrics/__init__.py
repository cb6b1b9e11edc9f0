"""Numbers that say how good a detector is."""

from detkit.metrics.coco import CocoMetric

__all__ = ["CocoMetric"]
