"""Convolution blocks: conv + norm + activation, its depthwise form, Focus and SPPF."""

import torch
from torch import Tensor, nn

NORM_EPS = 1e-3  # with the momentum, what YOLOX was trained with; a state_dict does not carry them
NORM_MOMENTUM = 0.03


class ConvNormAct(nn.Module):
    """Convolution without bias, batch norm, SiLU; the padding keeps the size at stride 1.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: odd.
        stride: of the convolution.
        groups: of the convolution.
        activation: False leaves the SiLU out.

    Raises:
        ValueError: if the kernel size is even.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        activation: bool = True,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd; got {kernel_size}")
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)
        self.activation = nn.SiLU(inplace=True) if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H/stride, W/stride)."""
        return self.activation(self.norm(self.conv(x)))


def use_norm(module: nn.Module, eps: float, momentum: float) -> None:
    """Give every batch norm inside a module, in place, other values than those of YOLOX."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eps, norm.momentum = eps, momentum


class DepthwiseConv(nn.Sequential):
    """One filter per channel, then a 1x1 convolution across channels; norm and SiLU after each.

    Source: Howard et al., MobileNets, 2017, §3.1. https://arxiv.org/abs/1704.04861
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(
            ConvNormAct(in_channels, in_channels, kernel_size, stride, groups=in_channels),
            ConvNormAct(in_channels, out_channels, 1),
        )


def spatial_conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, depthwise: bool = False
) -> nn.Module:
    """A ConvNormAct, or its depthwise variant with the same shapes."""
    block = DepthwiseConv if depthwise else ConvNormAct
    return block(in_channels, out_channels, kernel_size, stride)


class Focus(nn.Module):
    """Halves the resolution without loss: the four pixel phases become channels, then a 3x3 convolution.

    Source: Ge et al., YOLOX, 2021 (code release); phases in the order top-left, bottom-left,
        top-right, bottom-right. https://arxiv.org/abs/2107.08430
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvNormAct(4 * in_channels, out_channels, 3)

    def forward(self, images: Tensor) -> Tensor:
        """(B, in_channels, H, W) with even H and W to (B, out_channels, H/2, W/2)."""
        phases = [images[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.conv(torch.cat(phases, dim=1))


class SPPF(nn.Module):
    """Spatial pyramid pooling, fast: three chained max-pools of 5 see 5, 9 and 13 cells.

    Source: He et al., Spatial Pyramid Pooling, 2014. https://arxiv.org/abs/1406.4729
        Differs from the paper in: stride 1, chained instead of parallel pools (the same numbers).
    """

    def __init__(self, in_channels: int, out_channels: int | None = None, kernel_size: int = 5) -> None:
        super().__init__()
        hidden = in_channels // 2
        self.reduce = ConvNormAct(in_channels, hidden, 1)
        self.pool = nn.MaxPool2d(kernel_size, stride=1, padding=kernel_size // 2)
        self.expand = ConvNormAct(4 * hidden, out_channels or in_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H, W)."""
        pooled = [self.reduce(x)]
        for _ in range(3):
            pooled.append(self.pool(pooled[-1]))
        return self.expand(torch.cat(pooled, dim=1))
