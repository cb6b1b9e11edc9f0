"""Networks as users have them, outside of the package: three shapes of good ones, and some that cannot be used."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detkit.types import FeatureSpec


def block(in_channels: int, out_channels: int, stride: int = 2) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


class StageAttributes(nn.Module):
    """One attribute per stage, a parameter and a buffer of its own, a head for images of one size only."""

    table: Tensor

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = block(3, width)
        self.layer1 = block(width, width)
        self.layer2 = nn.Sequential(block(width, 2 * width), nn.Dropout2d(0.5))
        self.layer3 = block(2 * width, 3 * width)
        self.layer4 = block(3 * width, 4 * width)
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("table", torch.zeros(3, 1, 1), persistent=False)
        self.head = nn.Linear(4 * width * 7 * 7, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.layer1(self.stem(images + self.table)) * self.scale
        if self.training:
            x = F.dropout(x, 0.1)
        return self.head(self.layer4(self.layer3(self.layer2(x))).flatten(1))


class OneSequential(nn.Module):
    """All stages in one Sequential, each convolution followed by a ReLU in place."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for in_channels, out_channels in ((3, 8), (8, 8), (8, 16), (16, 24), (24, 40)):
            layers += [nn.Conv2d(in_channels, out_channels, 3, 2, padding=1), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(40, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).mean((2, 3)))


class ParallelBranches(nn.Module):
    """As in HRNet: lists of branches that run side by side and are mixed; it keeps the contract by itself.

    Args:
        width: channels of the finest branch.
    """

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.out_specs = [FeatureSpec(width * 2**i, 8 * 2**i, f"branches.{i}") for i in range(3)]
        self.stem = nn.Sequential(block(3, width), block(width, width), block(width, width))
        self.downs = nn.ModuleList(block(width * 2**i, width * 2 ** (i + 1)) for i in range(2))
        self.branches = nn.ModuleList(block(s.channels, s.channels, stride=1) for s in self.out_specs)
        self.ups = nn.ModuleList(nn.Conv2d(width * 2 ** (i + 1), width * 2**i, 1) for i in range(2))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [self.stem(images)]
        for down in self.downs:
            maps.append(down(maps[-1]))
        maps = [branch(values) for branch, values in zip(self.branches, maps, strict=True)]
        coarser = [F.interpolate(up(values), scale_factor=2.0) for up, values in zip(self.ups, maps[1:], strict=True)]
        return [*(fine + coarse for fine, coarse in zip(maps, coarser, strict=False)), maps[-1]]


class Awkward(nn.Module):
    """Layers that give what is no map of a whole stride, that run twice, or never."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(7)
        self.flat = nn.Flatten()
        self.pair = Pair()
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.twice_deep = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1))
        self.unused = nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        images = self.twice_deep(self.twice_deep(self.twice(self.twice(images))))
        first, second = self.pair(images)
        return self.flat(self.pool(self.conv(first + second)))


class Pair(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images


class Branching(nn.Module):
    """What it does depends on the values of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = block(3, 8)

    def forward(self, images: Tensor) -> Any:
        return self.layer(images if images.sum() > 0 else -images)
