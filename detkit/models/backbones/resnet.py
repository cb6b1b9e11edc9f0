"""ResNet: torchvision's, the -vd form of RT-DETR, and a form for small images."""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from detkit.layers.residual import BasicBlock, Bottleneck, Norm, Shortcut, residual_stage
from detkit.models.backbones.levels import choose_levels
from detkit.models.backbones.published import PublishedWeights, TorchvisionWeights
from detkit.types import FeatureSpec

Depth = Literal[18, 34, 50, 101, 152]
Stem = Literal["basic", "deep"]
BLOCKS = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
STEM_CHANNELS = 64


class ResNet(nn.Module):
    """Image to the feature maps of "relu" (the stem) and "layer1" to "layer4".

    Names, numbers and first weights are torchvision's. With stem="deep" and shortcut="pool" it is the -vd form
    of RT-DETR: for depths of 50 and more under timm's names of its "d" form, below with one convolution more.

    Args:
        depth: number of layers as the papers count them.
        stem: "basic": one 7x7 convolution; "deep": three of 3x3.
        shortcut: of a stage's first block. "basic": a strided 1x1 convolution, where channels or size change;
            "pool": 2x2 average pool before it where the size changes, and the convolution in every stage.
        small_images: for images of about 32 pixels: the stem is one 3x3 convolution without stride and without
            max-pool, so that layer1 to layer4 are P0 to P3.
        frozen_norm: batch norm whose statistics and weights never change, for small batches.
        out_levels: levels or names of layers; None: the three coarsest. Deeper layers are not built.

    Raises:
        ValueError: if an argument is none of the words above, a deep stem is wanted for small images,
            or there is no such level.

    Source: He et al., Deep Residual Learning, 2015. https://arxiv.org/abs/1512.03385
        Deep stem, pool: He et al., Bag of Tricks, 2018, fig. 2 (C, D). https://arxiv.org/abs/1812.01187
    """

    published: PublishedWeights | None

    def __init__(
        self,
        depth: Depth = 50,
        stem: Stem = "basic",
        shortcut: Shortcut = "basic",
        small_images: bool = False,
        frozen_norm: bool = False,
        out_levels: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        _refuse_other("depth", depth, get_args(Depth))
        _refuse_other("stem", stem, get_args(Stem))
        _refuse_other("shortcut", shortcut, get_args(Shortcut))
        if small_images and stem == "deep":
            raise ValueError("stem must be basic with small_images, whose stem is one 3x3 convolution; got 'deep'")
        plain = stem == "basic" and shortcut == "basic" and not small_images
        self.published = TorchvisionWeights(f"resnet{depth}") if plain else None

        block, depths = BLOCKS[depth]
        first_stride = 1 if small_images else 2
        available = [FeatureSpec(STEM_CHANNELS, first_stride, "relu")]
        for number in range(4):
            stride = first_stride**2 * 2**number
            available.append(FeatureSpec(64 * 2**number * block.expansion, stride, f"layer{number + 1}"))
        self.chosen = choose_levels(
            available, [spec.name for spec in available[-3:]] if out_levels is None else out_levels
        )
        self.out_specs = [available[position] for position in self.chosen]

        norm: Norm = FrozenBatchNorm2d if frozen_norm else nn.BatchNorm2d
        self.conv1 = _stem(stem, small_images, norm)
        self.bn1 = norm(STEM_CHANNELS)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small_images else nn.MaxPool2d(3, stride=2, padding=1)
        self.layers = [spec.name for spec in available[1 : self.chosen[-1] + 1]]
        for number, name in enumerate(self.layers):
            in_channels, stride = available[number].channels, 1 if number == 0 else 2
            layer = residual_stage(block, in_channels, 64 * 2**number, depths[number], stride, shortcut, norm)
            self.add_module(name, layer)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to one (B, channels, H/stride, W/stride) per entry of ``out_specs``."""
        features = [self.relu(self.bn1(self.conv1(images)))]
        x = self.maxpool(features[0])
        for name in self.layers:
            x = self.get_submodule(name)(x)
            features.append(x)
        return [features[position] for position in self.chosen]


def _stem(stem: Stem, small_images: bool, norm: Norm) -> nn.Module:
    """The convolutions up to the stem's last norm."""
    if small_images:
        return nn.Conv2d(3, STEM_CHANNELS, 3, padding=1, bias=False)
    if stem == "basic":
        return nn.Conv2d(3, STEM_CHANNELS, 7, stride=2, padding=3, bias=False)
    half = STEM_CHANNELS // 2
    return nn.Sequential(
        nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False),
        norm(half),
        nn.ReLU(inplace=True),
        nn.Conv2d(half, half, 3, padding=1, bias=False),
        norm(half),
        nn.ReLU(inplace=True),
        nn.Conv2d(half, STEM_CHANNELS, 3, padding=1, bias=False),
    )


def _refuse_other(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}; got {value!r}")
