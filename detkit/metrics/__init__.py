"""What is measured of a trained network."""

from detkit.metrics.accuracy import Accuracy
from detkit.metrics.coco import CocoMetric

__all__ = ["Accuracy", "CocoMetric"]
