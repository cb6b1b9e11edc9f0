"""Load initial weights: of detkit, of other projects, and published by libraries."""

from detkit.weights.load import load_weights
from detkit.weights.load_report import LoadReport

__all__ = ["LoadReport", "load_weights"]
