"""The blocks of ResNet: convolutions whose output is added to their input."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

Shortcut = Literal["basic", "pool"]
Norm = Callable[[int], nn.Module]  # channels to a norm


class BasicBlock(nn.Module):
    """Two 3x3 convolutions.

    Args:
        in_channels: of the input.
        width: of the convolutions, and of the output.
        stride: of the first convolution.
        shortcut: None where the block's input is added as it is.
        norm: after each convolution.

    Source: He et al., Deep Residual Learning, 2015, fig. 5 left. https://arxiv.org/abs/1512.03385
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: nn.Module | None, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = norm(width)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, width, H/stride, W/stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution; the last widens fourfold.

    Args:
        in_channels: of the input.
        width: of the first two convolutions.
        stride: of the 3x3 convolution.
        shortcut: None where the block's input is added as it is.
        norm: after each convolution.

    Source: He et al., Deep Residual Learning, 2015, fig. 5 right. https://arxiv.org/abs/1512.03385
        Differs from the paper in: the 3x3 convolution has the stride, not the first one (as torchvision).
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: nn.Module | None, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = norm(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = norm(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, 4 * width, H/stride, W/stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def residual_stage(
    block: type[BasicBlock] | type[Bottleneck],
    in_channels: int,
    width: int,
    depth: int,
    stride: int,
    shortcut: Shortcut,
    norm: Norm,
) -> nn.Sequential:
    """Blocks of which the first changes channels and size, and therefore has layers in its shortcut.

    Args:
        block: the kind of all of them.
        in_channels: of the input.
        width: of the blocks.
        depth: number of blocks.
        stride: of the first block.
        shortcut: of the first block. "basic": a strided 1x1 convolution, where channels or size change.
            "pool": a 2x2 average pool first, so that no pixel is left out; the convolution always.
        norm: after each convolution.

    Returns:
        (B, in_channels, H, W) to (B, width * expansion, H/stride, W/stride).
    """
    channels = width * block.expansion
    project: nn.Module | None = None
    if shortcut == "pool":
        pool = nn.AvgPool2d(2, stride, ceil_mode=True) if stride > 1 else nn.Identity()
        project = nn.Sequential(pool, nn.Conv2d(in_channels, channels, 1, bias=False), norm(channels))
    elif stride > 1 or in_channels != channels:
        project = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), norm(channels))
    first = block(in_channels, width, stride, project, norm)
    return nn.Sequential(first, *(block(channels, width, 1, None, norm) for _ in range(depth - 1)))
