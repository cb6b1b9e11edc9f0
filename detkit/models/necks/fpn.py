"""Feature pyramid: what the deep levels know flows down to the fine ones."""

import itertools
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detkit.layers.conv import ConvNormAct
from detkit.layers.csp import CSPBlock
from detkit.types import FeatureSpec


class FPN(nn.Module):
    """Top-down path with CSP blocks; every level keeps its stride, and its channels if none are given.

    Args:
        in_specs: of the backbone, finest level first, each twice the stride of the one before.
        depth_multiple: factor on the three bottlenecks of each block (at least one stays).
        channels: of each output level, finest first; None: those of the input.
        depthwise: depthwise convolutions in the bottlenecks.
        extra_levels: so many levels coarser than the backbone's come first, each a strided convolution
            of the one before: 1 makes P6 of P5.
        block: called with the channels of the input and of the output, instead of a CSP block, which alone
            heeds the depth.

    Raises:
        ValueError: if strides do not double from level to level, or the channels do not fit the levels.

    Source: Lin et al., Feature Pyramid Networks, 2017, fig. 3. https://arxiv.org/abs/1612.03144
        Differs from the paper in: features are concatenated and go through a CSP block (YOLOX).
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
        super().__init__()
        self.extra = nn.ModuleList()
        for number in range(extra_levels):
            last = in_specs[-1]
            self.extra.append(ConvNormAct(last.channels, last.channels, 3, stride=2))
            in_specs = [*in_specs, FeatureSpec(last.channels, 2 * last.stride, f"neck.extra.{number}")]
        strides = [spec.stride for spec in in_specs]
        if any(coarse != 2 * fine for fine, coarse in itertools.pairwise(strides)):
            raise ValueError(f"each level's stride must be twice that of the one before; got strides {strides}")
        channels = channels or [spec.channels for spec in in_specs]
        if len(channels) != len(in_specs):
            raise ValueError(f"one number of channels for each of the {len(in_specs)} levels; got {channels}")
        depth = max(1, round(3 * depth_multiple))
        self.make_block = block or partial(CSPBlock, depth=depth, shortcut=False, depthwise=depthwise)
        # laterals[i] narrows level i + 1 to the width of level i, on its way down (and, in PAN, up again)
        self.laterals = nn.ModuleList()
        self.top_down = nn.ModuleList()
        incoming = in_specs[-1].channels
        for spec, width in reversed(list(zip(in_specs[:-1], channels[:-1], strict=True))):
            self.laterals.insert(0, ConvNormAct(incoming, width, 1))
            self.top_down.insert(0, self.make_block(spec.channels + width, width))
            incoming = width
        self.out_specs = [
            FeatureSpec(width, spec.stride, spec.name) for width, spec in zip(channels, in_specs, strict=True)
        ]
        top = in_specs[-1].channels
        self.top = nn.Identity() if channels[-1] == top else ConvNormAct(top, channels[-1], 1)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Backbone features to one map per entry of ``out_specs``."""
        features = self.with_extra(features)
        outputs, _ = self.descend(features)
        return [*outputs, self.top(features[-1])]

    def with_extra(self, features: list[Tensor]) -> list[Tensor]:
        """The backbone's maps and the coarser ones made of the last."""
        for coarser in self.extra:
            features = [*features, coarser(features[-1])]
        return features

    def descend(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """All levels but the coarsest after the top-down path, and the narrowed maps that fed it."""
        x, outputs, narrowed = features[-1], [], []
        for feature, lateral, block in reversed(list(zip(features[:-1], self.laterals, self.top_down, strict=True))):
            narrow = lateral(x)
            up = F.interpolate(narrow, scale_factor=2.0, mode="nearest")
            x = block(torch.cat((up, feature), dim=1))
            outputs.insert(0, x)
            narrowed.insert(0, narrow)
        return outputs, narrowed
