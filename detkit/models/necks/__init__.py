"""Necks: feature maps to feature maps that have seen each other, or to one vector for the image."""

from detkit.models.necks.fpn import FPN
from detkit.models.necks.hybrid_encoder import HybridEncoder
from detkit.models.necks.pan import PAN
from detkit.models.necks.pooling import GlobalAveragePool

__all__ = ["FPN", "PAN", "GlobalAveragePool", "HybridEncoder"]
