"""CSPDarknet with a Focus stem, the backbone of the YOLO recipes."""

from torch import Tensor, nn

from detkit.layers.conv import SPPF, Focus, spatial_conv
from detkit.layers.csp import CSPBlock
from detkit.types import FeatureSpec


class CSPDarknet(nn.Module):
    """Image to the feature maps P3, P4, P5.

    Args:
        depth_multiple: factor on the bottlenecks of each stage (at least one stays).
        width_multiple: factor on the channels, rounded down to a multiple of 8.
        max_channels: the last stages are no wider than this before the width multiple.
        depthwise: depthwise convolutions for down-sampling and in the bottlenecks.

    Raises:
        ValueError: if a factor is not positive, or leaves less than 8 channels.

    Source: Wang et al., CSPNet, 2019. https://arxiv.org/abs/1911.11929
        Ge et al., YOLOX, 2021 (the arrangement of stem, SPP and stages). https://arxiv.org/abs/2107.08430
    """

    STAGES = ((128, 1), (256, 3), (512, 3), (1024, 1))  # (channels, depth in units of 3 bottlenecks) of P2..P5

    def __init__(
        self,
        depth_multiple: float = 1.0,
        width_multiple: float = 1.0,
        max_channels: int = 1024,
        depthwise: bool = False,
    ) -> None:
        super().__init__()
        if depth_multiple <= 0 or width_multiple <= 0:
            raise ValueError(
                f"multiples must be positive; got depth_multiple={depth_multiple}, width_multiple={width_multiple}"
            )
        base_depth = max(1, round(3 * depth_multiple))
        channels = _scale(64, width_multiple)
        self.stem = Focus(3, channels)
        self.stages = nn.ModuleList()
        self.out_specs: list[FeatureSpec] = []
        for level, (base_channels, units) in enumerate(self.STAGES, start=2):
            in_channels, channels = channels, _scale(min(base_channels, max_channels), width_multiple)
            last = level == len(self.STAGES) + 1
            down = spatial_conv(in_channels, channels, 3, stride=2, depthwise=depthwise)
            block = CSPBlock(channels, channels, units * base_depth, shortcut=not last, depthwise=depthwise)
            self.stages.append(nn.Sequential(down, SPPF(channels), block) if last else nn.Sequential(down, block))
            if level >= 3:
                self.out_specs.append(FeatureSpec(channels, stride=2**level, name=f"P{level}"))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to one (B, channels, H/stride, W/stride) per entry of ``out_specs``."""
        x = self.stem(images)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[-len(self.out_specs) :]


def _scale(channels: int, width_multiple: float) -> int:
    scaled = int(channels * width_multiple) // 8 * 8
    if scaled < 8:
        raise ValueError(f"width_multiple={width_multiple} leaves fewer than 8 of {channels} channels; raise it")
    return scaled
