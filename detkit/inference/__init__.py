"""Trained detectors, from their files to results."""

from detkit.inference.predictor import Predictor, load
from detkit.inference.results import Detection, ImageDetections
from detkit.inference.stored import StoredDetector, read_stored

__all__ = ["Detection", "ImageDetections", "Predictor", "StoredDetector", "load", "read_stored"]
