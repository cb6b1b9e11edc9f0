"""Training and evaluation: from the parts of a recipe to a trained detector."""

from detkit.training.callbacks.ema import EMA
from detkit.training.callbacks.late_l1 import LateL1
from detkit.training.evaluate import Evaluation, evaluate
from detkit.training.module import DetectionModule
from detkit.training.optim.muon import Muon
from detkit.training.optim.parameter_groups import parameter_groups
from detkit.training.optim.schedules import WarmupCosine, WarmupFlatCosine
from detkit.training.parts import Parts
from detkit.training.settings import CheckpointSettings, FineTuningSettings, RunSettings
from detkit.training.train import TrainingResult, train

__all__ = [
    "EMA",
    "CheckpointSettings",
    "DetectionModule",
    "Evaluation",
    "FineTuningSettings",
    "LateL1",
    "Muon",
    "Parts",
    "RunSettings",
    "TrainingResult",
    "WarmupCosine",
    "WarmupFlatCosine",
    "evaluate",
    "parameter_groups",
    "train",
]
