"""Small models to look at."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detkit.types import FeatureSpec


class Backbone(nn.Module):
    """Two levels with biases: 4 channels at stride 2, 8 at stride 4."""

    def __init__(self) -> None:
        super().__init__()
        self.out_specs = [FeatureSpec(4, 2, "fine"), FeatureSpec(8, 4, "coarse")]
        self.fine = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.coarse = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.fine(images)
        return [fine, self.coarse(fine)]


class Pool(nn.Module):
    """One vector for the image: stride 0."""

    def __init__(self) -> None:
        super().__init__()
        self.out_specs = [FeatureSpec(8, 0, "pooled")]

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [features[-1].mean((2, 3))]


class Net(nn.Module):
    """Backbone, neck and head like those of a classifier; the head calls no module for its product."""

    largest_stride = 4

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.neck = Pool()
        self.head = Head()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.neck(self.backbone(images)))


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(8)[:5])

    def forward(self, features: list[Tensor]) -> Tensor:
        return F.linear(features[0], self.weight)
