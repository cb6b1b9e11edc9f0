"""TrainingResult detectors, from their files to results."""

from typing import TYPE_CHECKING

from detkit.lazy import lazy_exports

if TYPE_CHECKING:
    from detkit.inference.predictor import Predictor, load
    from detkit.inference.results import Detection, ImageDetections
    from detkit.inference.stored_detector import StoredDetector, read_stored

__all__ = ["Detection", "ImageDetections", "Predictor", "StoredDetector", "load", "read_stored"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Detection": "detkit.inference.results",
        "ImageDetections": "detkit.inference.results",
        "Predictor": "detkit.inference.predictor",
        "StoredDetector": "detkit.inference.stored_detector",
        "load": "detkit.inference.predictor",
        "read_stored": "detkit.inference.stored_detector",
    },
)
