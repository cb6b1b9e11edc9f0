"""Trained detectors, from their files to results.

Torch is not imported before a name is asked for: a mistyped command is answered at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detkit.inference.predictor import Predictor, load
    from detkit.inference.results import Detection, ImageDetections
    from detkit.inference.stored_detector import StoredDetector, read_stored

__all__ = ["Detection", "ImageDetections", "Predictor", "StoredDetector", "load", "read_stored"]

_MODULES = {
    "Detection": "detkit.inference.results",
    "ImageDetections": "detkit.inference.results",
    "Predictor": "detkit.inference.predictor",
    "StoredDetector": "detkit.inference.stored_detector",
    "load": "detkit.inference.predictor",
    "read_stored": "detkit.inference.stored_detector",
}


def __getattr__(name: str) -> Any:
    """A part, imported when it is asked for."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
