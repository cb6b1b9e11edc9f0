"""Backbones: image to feature maps, described by ``out_specs``."""

from detkit.models.backbones.csp_darknet import CSPDarknet
from detkit.models.backbones.layers import LayerBackbone
from detkit.models.backbones.resnet import ResNet
from detkit.models.backbones.shufflenet import ShuffleNetV2
from detkit.models.backbones.timm import TimmBackbone
from detkit.models.backbones.torchvision import TorchvisionBackbone

__all__ = ["CSPDarknet", "LayerBackbone", "ResNet", "ShuffleNetV2", "TimmBackbone", "TorchvisionBackbone"]
