"""Necks: feature maps to feature maps that have seen each other."""

from detkit.models.necks.fpn import FPN
from detkit.models.necks.pan import PAN

__all__ = ["FPN", "PAN"]
