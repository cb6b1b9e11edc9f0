"""Weights to start from: detkit's own, other projects' files, and those that libraries publish."""

from detkit.weights.load import load_weights
from detkit.weights.load_report import LoadReport

__all__ = ["LoadReport", "load_weights"]
