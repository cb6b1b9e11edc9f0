"""The simple pyramid against its formula, level by level."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detkit.models.backbones.pyramid import ChannelNorm, SimplePyramid
from detkit.types import FeatureSpec


def test_pyramid_by_its_formula() -> None:
    torch.manual_seed(0)
    pyramid: Any = SimplePyramid(FeatureSpec(8, 16, "blocks.1"), ["P2", "P3", "P4", "P5", "P6"])
    assert [(s.channels, s.stride) for s in pyramid.out_specs] == [(2, 4), (4, 8), (8, 16), (8, 32), (8, 64)]
    feature = torch.randn(2, 8, 4, 4)
    finest, fine, same, coarse, coarsest = pyramid(feature)
    assert torch.equal(same, feature)
    assert torch.equal(coarse, feature.view(2, 8, 2, 2, 2, 2).amax((3, 5)))
    assert torch.equal(coarsest, feature.amax((2, 3), keepdim=True))

    def doubled(layer: nn.ConvTranspose2d, maps: Tensor) -> Tensor:
        """Each cell becomes two by two, each of its own linear map."""
        assert layer.bias is not None
        cells = torch.einsum("bchw,cdij->bdhiwj", maps, layer.weight).flatten(4).flatten(2, 3)
        return cells + layer.bias.view(-1, 1, 1)

    torch.testing.assert_close(fine, doubled(pyramid.levels["P3"][0], feature))
    first, norm, gelu, second = pyramid.levels["P2"]
    half = doubled(first, feature)
    normed = (half - half.mean(1, keepdim=True)) / (half.var(1, correction=0, keepdim=True) + norm.norm.eps).sqrt()
    torch.testing.assert_close(finest, doubled(second, gelu(normed)))
    assert isinstance(norm, ChannelNorm) and isinstance(gelu, nn.GELU)


@pytest.mark.parametrize("stride", [14, 128])
def test_strides_that_no_pyramid_has(stride: int) -> None:
    with pytest.raises(ValueError, match=f"stride 4, 8, 16, 32, 64; blocks.1 has {stride}"):
        SimplePyramid(FeatureSpec(8, stride, "blocks.1"), ["P3"])
