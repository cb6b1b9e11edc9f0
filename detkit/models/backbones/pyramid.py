"""Maps of several strides from the one map of a plain vision transformer."""

from collections.abc import Sequence

from torch import Tensor, nn

from detkit.models.backbones.levels import choose_levels
from detkit.types import FeatureSpec

STRIDES = (4, 8, 16, 32, 64)


class SimplePyramid(nn.Module):
    """One map to maps of other strides, each made of that one map alone.

    Each finer level is a transposed convolution of stride 2 that halves the channels, with a layer norm and a GELU
    between two; each coarser one a max-pool of stride 2; the map's own stride is the map itself.

    Args:
        in_spec: of the map; its stride is a power of two.
        out_levels: "P2" to "P6".

    Raises:
        ValueError: if the stride is no power of two, or there is no such level.

    Source: Li et al., Exploring Plain Vision Transformer Backbones for Object Detection, 2022, §3.
        https://arxiv.org/abs/2203.16527
        Differs from the paper in: no 1x1 and 3x3 convolutions at the end of each level, the neck has its own.
    """

    def __init__(self, in_spec: FeatureSpec, out_levels: Sequence[str]) -> None:
        super().__init__()
        if in_spec.stride not in STRIDES:
            raise ValueError(
                f"a pyramid needs a map of stride {', '.join(map(str, STRIDES))}; {in_spec.name} has {in_spec.stride}; "
                "take a network of patches of 8, 16 or 32 pixels"
            )
        available = [_spec(in_spec, stride) for stride in STRIDES]
        self.out_specs = [available[position] for position in choose_levels(available, out_levels)]
        self.levels = nn.ModuleDict({spec.level: _scale(in_spec, spec.stride) for spec in self.out_specs})

    def forward(self, feature: Tensor) -> list[Tensor]:
        """(B, channels, h, w) to one map per entry of ``out_specs``."""
        return [level(feature) for level in self.levels.values()]


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each cell.

    Args:
        channels: of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, h, w) to the same shape."""
        return self.norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _spec(in_spec: FeatureSpec, stride: int) -> FeatureSpec:
    channels = in_spec.channels // max(1, in_spec.stride // stride)
    level = FeatureSpec(channels, stride).level
    return FeatureSpec(channels, stride, f"pyramid.levels.{level}")


def _scale(in_spec: FeatureSpec, stride: int) -> nn.Module:
    """Layers from the map's stride to the wanted one."""
    if stride >= in_spec.stride:
        pools = (stride // in_spec.stride).bit_length() - 1
        return nn.Sequential(*(nn.MaxPool2d(2) for _ in range(pools)))
    layers: list[nn.Module] = []
    channels = in_spec.channels
    for _ in range((in_spec.stride // stride).bit_length() - 1):
        if layers:
            layers += [ChannelNorm(channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 2, stride=2))
        channels //= 2
    return nn.Sequential(*layers)
