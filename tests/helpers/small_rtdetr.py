"""An RT-DETR that is small enough to train in a test."""

from functools import partial
from typing import Any

import torch

from detkit.models import Detector
from detkit.models.backbones import ShuffleNetV2
from detkit.models.heads import RTDETRHead
from detkit.models.necks import HybridEncoder


def small_rtdetr(backbone: Any = None, seed: int = 0, **head: Any) -> Detector:
    """On a ShuffleNet or another backbone, for five classes; 30 queries, two layers, or as said."""
    torch.manual_seed(seed)
    options = {"num_classes": 5, "channels": 32, "num_queries": 30, "num_layers": 2, "feedforward": 64, **head}
    return Detector(
        backbone or ShuffleNetV2("x0_5"),
        partial(HybridEncoder, channels=32, feedforward=64, depth=1),
        partial(RTDETRHead, **options),
    )
