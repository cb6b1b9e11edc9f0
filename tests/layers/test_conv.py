"""Blocks against loops and against the form that their paper gives."""

import pytest
import torch
import torch.nn.functional as F

from detkit.layers.conv import SPPF, ConvNormAct, DepthwiseConv, Focus
from detkit.layers.csp import CSPBlock


def test_focus_collects_phases_in_order() -> None:
    """Channels: top-left, bottom-left, top-right, bottom-right, each with its three colours."""
    images = torch.rand(2, 3, 4, 6)
    focus = Focus(3, 12)
    focus.conv = torch.nn.Identity()  # type: ignore[assignment]
    phases = focus(images)
    for index, (row, column) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        for colour in range(3):
            for y in range(2):
                for x in range(3):
                    assert phases[1, 3 * index + colour, y, x] == images[1, colour, 2 * y + row, 2 * x + column]


def test_sppf_equals_parallel_pools() -> None:
    """Three chained pools of 5 are pools of 5, 9 and 13."""
    block = SPPF(8).eval()
    x = torch.randn(2, 8, 14, 15)
    reduced = block.reduce(x)
    pools = [F.max_pool2d(reduced, size, 1, size // 2) for size in (5, 9, 13)]
    torch.testing.assert_close(block(x), block.expand(torch.cat([reduced, *pools], dim=1)))


def test_conv_block_is_conv_then_norm_then_silu() -> None:
    block = ConvNormAct(4, 6, 3, stride=2).eval()
    x = torch.randn(1, 4, 9, 9)
    normed = F.batch_norm(
        F.conv2d(x, block.conv.weight, stride=2, padding=1),
        block.norm.running_mean,
        block.norm.running_var,
        block.norm.weight,
        block.norm.bias,
        eps=1e-3,
    )
    torch.testing.assert_close(block(x), normed * normed.sigmoid())


def test_even_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="kernel_size must be odd; got 4"):
        ConvNormAct(3, 8, 4)


def test_depthwise_channels_do_not_mix_before_the_second_convolution() -> None:
    block = DepthwiseConv(4, 8, 3).eval()
    x = torch.randn(1, 4, 5, 5)
    changed = x.clone()
    changed[:, 2] += 1
    differs = (block[0](x) != block[0](changed)).flatten(2).any(-1)[0]
    assert differs.tolist() == [False, False, True, False]


def test_csp_half_passes_by() -> None:
    """With the bottlenecks' part of the joint silenced, only the bypass decides the output."""
    block = CSPBlock(8, 8, depth=2).eval()
    x = torch.randn(1, 8, 6, 6)
    block.join.conv.weight.data[:, :4] = 0
    before = block(x)
    for parameter in block.bottlenecks.parameters():
        parameter.data.mul_(3)
    torch.testing.assert_close(block(x), before)
