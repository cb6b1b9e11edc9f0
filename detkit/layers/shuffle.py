"""The block of ShuffleNet V2: cheap convolutions on half of the channels, then the halves are shuffled."""

import torch
from torch import Tensor, nn


class ShuffleBlock(nn.Module):
    """One half of the channels is kept, the other goes through 1x1, depthwise 3x3 and 1x1; then they interleave.

    At stride 2 both branches see all channels, and the first is down-sampled as well.

    Args:
        in_channels: of the input; at stride 1 the same as out_channels.
        out_channels: of the output, even.
        stride: 1 or 2.

    Source: Ma et al., ShuffleNet V2, 2018, fig. 3 (c, d). https://arxiv.org/abs/1807.11164
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.splits = stride == 1
        self.branch1 = (
            nn.Identity()
            if self.splits
            else nn.Sequential(*_depthwise(in_channels, stride), *_pointwise(in_channels, half))
        )
        self.branch2 = nn.Sequential(
            *_pointwise(half if self.splits else in_channels, half),
            *_depthwise(half, stride),
            *_pointwise(half, half),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H/stride, W/stride)."""
        bypass, main = x.chunk(2, dim=1) if self.splits else (x, x)
        halves = torch.cat((self.branch1(bypass), self.branch2(main)), dim=1)
        return halves.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)  # a b c A B C to a A b B c C


def _pointwise(in_channels: int, out_channels: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


def _depthwise(channels: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
    return [conv, nn.BatchNorm2d(channels)]
