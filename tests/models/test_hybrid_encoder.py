"""The neck of RT-DETR step by step, as figure 4 of the paper draws it."""

import torch
import torch.nn.functional as F

from detkit.models.necks import HybridEncoder
from detkit.ops.positions import sine_positions
from detkit.types import FeatureSpec
from tests.models.contract import trained_a_little

SPECS = [FeatureSpec(6, 8, "P3"), FeatureSpec(8, 16, "P4"), FeatureSpec(12, 32, "P5")]
SIZES_HW = [(8, 12), (4, 6), (2, 3)]


def test_agrees_with_its_steps() -> None:
    """Attention in P5, row after row; down and up again, each time what comes first, then what was there."""
    neck = HybridEncoder(SPECS, channels=16, num_heads=2, feedforward=32, num_layers=2, depth=1).double().eval()
    trained_a_little(neck)
    features = [torch.randn(2, s.channels, *size_hw).double() for s, size_hw in zip(SPECS, SIZES_HW, strict=True)]
    p3, p4, p5 = (project(feature) for project, feature in zip(neck.project, features, strict=True))

    tokens = torch.stack([p5[:, :, row, column] for row in range(2) for column in range(3)], dim=1)
    for layer in neck.attention:
        tokens = layer(tokens, sine_positions((2, 3), 16, tokens))
    for number, (row, column) in enumerate((row, column) for row in range(2) for column in range(3)):
        p5[:, :, row, column] = tokens[:, number]

    fusion = neck.fusion
    narrow5 = fusion.laterals[1](p5)
    down4 = fusion.top_down[1](torch.cat((F.interpolate(narrow5, (4, 6)), p4), dim=1))
    narrow4 = fusion.laterals[0](down4)
    out3 = fusion.top_down[0](torch.cat((F.interpolate(narrow4, (8, 12)), p3), dim=1))
    out4 = fusion.bottom_up[0](torch.cat((fusion.downs[0](out3), narrow4), dim=1))
    out5 = fusion.bottom_up[1](torch.cat((fusion.downs[1](out4), narrow5), dim=1))
    for ours, expected in zip(neck(features), (out3, out4, out5), strict=True):
        torch.testing.assert_close(ours, expected)


def test_norms_are_those_of_its_release() -> None:
    norms = [m for m in HybridEncoder(SPECS, channels=16).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}
