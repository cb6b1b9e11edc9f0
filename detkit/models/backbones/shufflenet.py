"""ShuffleNet V2, a backbone for small processors, as torchvision has it."""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn

from detkit.layers.shuffle import ShuffleBlock
from detkit.models.backbones.levels import OUT_LEVELS, choose_levels
from detkit.models.backbones.published import PublishedWeights, TorchvisionWeights
from detkit.types import FeatureSpec

Width = Literal["x0_5", "x1_0", "x1_5", "x2_0"]
STEM_CHANNELS = 24
CHANNELS = {"x0_5": (48, 96, 192), "x1_0": (116, 232, 464), "x1_5": (176, 352, 704), "x2_0": (244, 488, 976)}
DEPTHS = (4, 8, 4)  # blocks of stage2, stage3, stage4


class ShuffleNetV2(nn.Module):
    """Image to the feature maps of "conv1", "maxpool" and "stage2" to "stage4".

    Names and numbers are torchvision's; its "conv5" belongs to the classifier and is left out.

    Args:
        width: factor on the channels: x0_5, x1_0, x1_5 or x2_0.
        out_levels: "P1" to "P5", or names of layers. Deeper layers are not built.

    Raises:
        ValueError: if there is no such width or level.

    Source: Ma et al., ShuffleNet V2, 2018, table 5. https://arxiv.org/abs/1807.11164
    """

    published: PublishedWeights | None

    def __init__(self, width: Width = "x1_0", out_levels: Sequence[str] = OUT_LEVELS) -> None:
        super().__init__()
        if width not in get_args(Width):
            raise ValueError(f"width must be one of {', '.join(get_args(Width))}; got {width!r}")
        self.published = TorchvisionWeights(f"shufflenet_v2_{width}")
        available = [FeatureSpec(STEM_CHANNELS, 2, "conv1"), FeatureSpec(STEM_CHANNELS, 4, "maxpool")]
        for number, channels in enumerate(CHANNELS[width]):
            available.append(FeatureSpec(channels, 8 * 2**number, f"stage{number + 2}"))
        self.chosen = choose_levels(available, out_levels)
        self.out_specs = [available[position] for position in self.chosen]

        self.conv1 = nn.Sequential(
            nn.Conv2d(3, STEM_CHANNELS, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(STEM_CHANNELS),
            nn.ReLU(inplace=True),
        )
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layers = [spec.name for spec in available[: self.chosen[-1] + 1]]
        in_channels = STEM_CHANNELS
        for spec, depth in zip(available[2 : len(self.layers)], DEPTHS, strict=False):
            blocks = [ShuffleBlock(in_channels, spec.channels, stride=2)]
            blocks += [ShuffleBlock(spec.channels, spec.channels, stride=1) for _ in range(depth - 1)]
            self.add_module(spec.name, nn.Sequential(*blocks))
            in_channels = spec.channels

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to one (B, channels, H/stride, W/stride) per entry of ``out_specs``."""
        x, features = images, []
        for name in self.layers:
            x = self.get_submodule(name)(x)
            features.append(x)
        return [features[position] for position in self.chosen]
