"""Reading other projects' checkpoints: key maps and nothing else."""

from detkit.weights.fit import LoadReport
from detkit.weights.load import load_weights
from detkit.weights.yolox import load_yolox

__all__ = ["LoadReport", "load_weights", "load_yolox"]
