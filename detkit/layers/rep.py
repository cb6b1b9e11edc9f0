"""Blocks that are trained with two parallel convolutions and deployed with one."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval

from detkit.layers.conv import ConvNormAct


class RepConv(nn.Module):
    """A 3x3 and a 1x1 convolution, each with its norm, added, then SiLU.

    Source: Ding et al., RepVGG, 2021, §3. https://arxiv.org/abs/2101.03697
        Differs from the paper in: no branch without a convolution; SiLU (RT-DETR).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv3 = ConvNormAct(in_channels, out_channels, 3, activation=False)
        self.conv1 = ConvNormAct(in_channels, out_channels, 1, activation=False)
        self.activation = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H, W)."""
        return self.activation(self.conv3(x) + self.conv1(x))

    @torch.no_grad()
    def folded(self) -> nn.Sequential:
        """One 3x3 convolution and the SiLU, which give the same numbers as this block.

        Raises:
            ValueError: in training, where the norms follow the batch and no convolution does the same.

        Source: Ding et al., RepVGG, 2021, eqs. 3-4.
        """
        if self.training:
            raise ValueError("a rep block in training mode gives other numbers than one convolution; call eval() first")
        conv3, conv1 = (fuse_conv_bn_eval(block.conv, block.norm) for block in (self.conv3, self.conv1))
        conv3.weight += F.pad(conv1.weight, (1, 1, 1, 1))
        conv3.bias += conv1.bias  # type: ignore[operator]
        return nn.Sequential(conv3, nn.SiLU(inplace=True)).eval()


class CSPRep(nn.Module):
    """Rep blocks beside a convolution that passes them by; their sum is brought to the output's channels.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        depth: number of rep blocks.
        expansion: channels inside are those of the output times this.

    Raises:
        ValueError: if the expansion leaves no channel.

    Source: Zhao et al., RT-DETR, 2023, fig. 4 (fusion block). https://arxiv.org/abs/2304.08069
    """

    def __init__(self, in_channels: int, out_channels: int, depth: int = 3, expansion: float = 1.0) -> None:
        super().__init__()
        hidden = int(out_channels * expansion)
        if hidden < 1:
            raise ValueError(f"expansion {expansion} of {out_channels} channels leaves none inside")
        self.main = ConvNormAct(in_channels, hidden, 1)
        self.bypass = ConvNormAct(in_channels, hidden, 1)
        self.blocks = nn.Sequential(*(RepConv(hidden, hidden) for _ in range(depth)))
        self.join = ConvNormAct(hidden, out_channels, 1) if hidden != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H, W)."""
        return self.join(self.blocks(self.main(x)) + self.bypass(x))


def fold(model: nn.Module) -> None:
    """Replace every rep block inside a model by its one convolution, in place, for deployment without training.

    Raises:
        ValueError: if a block is in training mode.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, RepConv):
            model.set_submodule(name, module.folded())
