"""Detectors and the parts they are composed of."""

from detkit.models.detector import Detector
from detkit.models.preprocess import Preprocess

__all__ = ["Detector", "Preprocess"]
