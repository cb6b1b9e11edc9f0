"""Backbones: image to feature maps, described by ``out_specs``."""

from detkit.models.backbones.csp_darknet import CSPDarknet
from detkit.models.backbones.resnet import ResNet
from detkit.models.backbones.shufflenet import ShuffleNetV2

__all__ = ["CSPDarknet", "ResNet", "ShuffleNetV2"]
