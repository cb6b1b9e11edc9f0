"""Detectors, classifiers and the parts they are composed of."""

from detkit.models.classifier import Classifier
from detkit.models.detector import Detector
from detkit.models.preprocess import Preprocess

__all__ = ["Classifier", "Detector", "Preprocess"]
