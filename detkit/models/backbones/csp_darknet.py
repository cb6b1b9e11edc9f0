"""CSPDarknet with a Focus stem, the backbone of the YOLO recipes."""

from collections.abc import Sequence

from torch import Tensor, nn

from detkit.layers.conv import SPPF, Focus, spatial_conv
from detkit.layers.csp import CSPBlock
from detkit.models.backbones.levels import OUT_LEVELS, choose_levels
from detkit.types import FeatureSpec


class CSPDarknet(nn.Module):
    """Image to feature maps between P1 (the stem) and P6; what lies deeper than the coarsest is not built.

    Args:
        depth_multiple: factor on the bottlenecks of each stage (at least one stays).
        width_multiple: factor on the channels, rounded down to a multiple of 8.
        max_channels: the last stages are no wider than this before the width multiple.
        depthwise: depthwise convolutions for down-sampling and in the bottlenecks.
        out_levels: "P1" to "P6", or names of layers: "stem", "stages.0" (P2) to "stages.4". With P6 the SPPF
            lies in its stage, otherwise in P5's: always in the last of the full network.

    Raises:
        ValueError: if a factor is not positive, or leaves less than 8 channels; if there is no such level.

    Source: Wang et al., CSPNet, 2019. https://arxiv.org/abs/1911.11929
        Ge et al., YOLOX, 2021 (the arrangement of stem, SPP and stages). https://arxiv.org/abs/2107.08430
        Differs from the paper in: the stage P6.
    """

    # (channels, depth in units of 3 bottlenecks) of P2..P6
    STAGES = ((128, 1), (256, 3), (512, 3), (1024, 1), (1024, 1))

    def __init__(
        self,
        depth_multiple: float = 1.0,
        width_multiple: float = 1.0,
        max_channels: int = 1024,
        depthwise: bool = False,
        out_levels: Sequence[str] = OUT_LEVELS,
    ) -> None:
        super().__init__()
        if depth_multiple <= 0 or width_multiple <= 0:
            raise ValueError(
                f"multiples must be positive; got depth_multiple={depth_multiple}, width_multiple={width_multiple}"
            )
        available = [FeatureSpec(_scale(64, width_multiple), 2, "stem")]
        for number, (base_channels, _) in enumerate(self.STAGES):
            channels = _scale(min(base_channels, max_channels), width_multiple)
            available.append(FeatureSpec(channels, 2 ** (number + 2), f"stages.{number}"))
        self.chosen = choose_levels(available, out_levels)
        self.out_specs = [available[position] for position in self.chosen]

        base_depth = max(1, round(3 * depth_multiple))
        last = max(self.chosen[-1], 4)  # the stage with the SPPF: P5's, or P6's
        self.stem = Focus(3, available[0].channels)
        self.stages = nn.ModuleList()
        for position in range(1, self.chosen[-1] + 1):
            channels, depth = available[position].channels, self.STAGES[position - 1][1] * base_depth
            down = spatial_conv(available[position - 1].channels, channels, 3, stride=2, depthwise=depthwise)
            block = CSPBlock(channels, channels, depth, shortcut=position != last, depthwise=depthwise)
            pool = [SPPF(channels)] if position == last else []
            self.stages.append(nn.Sequential(down, *pool, block))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to one (B, channels, H/stride, W/stride) per entry of ``out_specs``."""
        features = [self.stem(images)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return [features[position] for position in self.chosen]


def _scale(channels: int, width_multiple: float) -> int:
    scaled = int(channels * width_multiple) // 8 * 8
    if scaled < 8:
        raise ValueError(f"width_multiple={width_multiple} leaves fewer than 8 of {channels} channels; raise it")
    return scaled
