"""Cross-stage partial blocks."""

import torch
from torch import Tensor, nn

from detkit.layers.conv import ConvNormAct, spatial_conv


class Bottleneck(nn.Module):
    """1x1 then 3x3 convolution, with a shortcut if wanted."""

    def __init__(self, channels: int, shortcut: bool = True, depthwise: bool = False) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(channels, channels, 1)
        self.conv2 = spatial_conv(channels, channels, 3, depthwise=depthwise)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same shape."""
        y = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class CSPBlock(nn.Module):
    """Half of the channels go through bottlenecks, half skip them; a 1x1 convolution joins them.

    Args:
        in_channels: of the input.
        out_channels: of the output; each half has half as many.
        depth: number of bottlenecks.
        shortcut: whether each bottleneck adds its input.
        depthwise: whether the 3x3 convolutions are depthwise.

    Source: Wang et al., CSPNet, 2019, fig. 2. https://arxiv.org/abs/1911.11929
    """

    def __init__(
        self, in_channels: int, out_channels: int, depth: int, shortcut: bool = True, depthwise: bool = False
    ) -> None:
        super().__init__()
        hidden = out_channels // 2
        self.main = ConvNormAct(in_channels, hidden, 1)
        self.bypass = ConvNormAct(in_channels, hidden, 1)
        self.bottlenecks = nn.Sequential(*(Bottleneck(hidden, shortcut, depthwise) for _ in range(depth)))
        self.join = ConvNormAct(2 * hidden, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H, W)."""
        return self.join(torch.cat((self.bottlenecks(self.main(x)), self.bypass(x)), dim=1))
