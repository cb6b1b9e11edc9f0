"""Path aggregation: after the top-down path, fine detail flows back up."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from detkit.layers.conv import spatial_conv
from detkit.models.necks.fpn import FPN
from detkit.types import FeatureSpec


class PAN(FPN):
    """FPN followed by a bottom-up path.

    Args:
        in_specs: of the backbone, finest level first, each twice the stride of the one before.
        depth_multiple: factor on the three bottlenecks of each block (at least one stays).
        channels: of each output level, finest first; None: those of the input.
        depthwise: depthwise convolutions for down-sampling and in the bottlenecks.
        extra_levels: as in FPN.
        block: as in FPN.

    Raises:
        ValueError: if strides do not double from level to level, or the channels do not fit the levels.

    Source: Liu et al., Path Aggregation Network, 2018, fig. 1. https://arxiv.org/abs/1803.01534
        Differs from the paper in: as FPN here.
    """

    def __init__(
        self,
        in_specs: list[FeatureSpec],
        depth_multiple: float = 1.0,
        channels: list[int] | None = None,
        depthwise: bool = False,
        extra_levels: int = 0,
        block: Callable[[int, int], nn.Module] | None = None,
    ) -> None:
        super().__init__(in_specs, depth_multiple, channels, depthwise, extra_levels, block)
        if len(self.out_specs) > 1:
            self.top = nn.Identity()  # the coarsest level comes out of the bottom-up path
        self.downs = nn.ModuleList()
        self.bottom_up = nn.ModuleList()
        for fine, coarse in zip(self.out_specs, self.out_specs[1:], strict=False):
            self.downs.append(spatial_conv(fine.channels, fine.channels, 3, stride=2, depthwise=depthwise))
            self.bottom_up.append(self.make_block(2 * fine.channels, coarse.channels))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Backbone features to one map per entry of ``out_specs``."""
        features = self.with_extra(features)
        descended, narrowed = self.descend(features)
        outputs = [descended[0] if descended else self.top(features[0])]
        for narrow, down, block in zip(narrowed, self.downs, self.bottom_up, strict=True):
            outputs.append(block(torch.cat((down(outputs[-1]), narrow), dim=1)))
        return outputs
