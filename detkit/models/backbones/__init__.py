"""Backbones: image to feature maps, described by ``out_specs``."""

from detkit.models.backbones.csp_darknet import CSPDarknet

__all__ = ["CSPDarknet"]
