"""A detector with a backbone of a stem and two stages, as small as it can be, to freeze and to fine-tune."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detkit.models import Detector
from detkit.training import Parts
from detkit.types import FeatureSpec
from tests.helpers.toy import CLASSES, SIZE


class TinyBackbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 4, stride=4, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.layer1 = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(8, 8, 2, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.out_specs = [FeatureSpec(8, 8, "layer2")]

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.layer2(self.layer1(self.relu(self.bn1(self.conv1(images)))))]


class Passing(nn.Module):
    def __init__(self, in_specs: Sequence[FeatureSpec]) -> None:
        super().__init__()
        self.out_specs = list(in_specs)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return features


class ToyHead(nn.Module):
    def __init__(self, in_specs: Sequence[FeatureSpec]) -> None:
        super().__init__()
        cells = (SIZE // in_specs[0].stride) ** 2
        self.norm = nn.BatchNorm2d(in_specs[0].channels)
        self.box = nn.Linear(in_specs[0].channels * cells, 4)
        self.class_logits = nn.Linear(in_specs[0].channels * cells, len(CLASSES))

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        x = self.norm(features[0]).flatten(1)
        return self.box(x), self.class_logits(x)


class PlainDetector(nn.Module):
    """No Composition: its ``train`` is torch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = TinyBackbone()
        self.head = ToyHead(self.backbone.out_specs)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.backbone(images))


def staged(plain: bool = False) -> nn.Module:
    """The same weights at every call."""
    torch.manual_seed(3)
    return PlainDetector() if plain else Detector(TinyBackbone(), Passing, ToyHead)


def with_backbone(parts: Parts, plain: bool = False) -> Parts:
    """A toy recipe's parts with this detector."""
    return parts._replace(model=staged(plain))
