"""Weights to start from: of detkit, of other projects' files, and published by libraries."""

from detkit.weights.load import load_weights
from detkit.weights.load_report import LoadReport

__all__ = ["LoadReport", "load_weights"]
