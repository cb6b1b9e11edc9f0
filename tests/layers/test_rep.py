"""Blocks of two convolutions, and the one convolution that gives the same numbers."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detkit.layers.rep import CSPRep, RepConv, fold
from detkit.models import Detector
from detkit.models.backbones import ShuffleNetV2
from detkit.models.heads import YOLOHead
from detkit.models.necks import HybridEncoder
from detkit.types import FeatureSpec
from tests.models.contract import tensors

AnyModule = TypeVar("AnyModule", bound=nn.Module)
SPECS = [FeatureSpec(16, 8, "P3"), FeatureSpec(24, 16, "P4"), FeatureSpec(40, 32, "P5")]
MAPS = [torch.randn(2, spec.channels, 64 // spec.stride, 96 // spec.stride) for spec in SPECS]


def hybrid_encoder() -> HybridEncoder:
    return HybridEncoder(SPECS, channels=16, num_heads=2, feedforward=32, depth=2, expansion=0.5)


def detector() -> Detector:
    return Detector(ShuffleNetV2("x0_5"), lambda specs: HybridEncoder(specs, 16), lambda specs: YOLOHead(specs, 3))


MODELS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "csp_rep": (lambda: CSPRep(6, 8, depth=2), torch.randn(2, 6, 7, 9)),
    "csp_rep_half": (lambda: CSPRep(6, 8, expansion=0.5), torch.randn(2, 6, 7, 9)),
    "hybrid_encoder": (hybrid_encoder, MAPS),
    "detector": (detector, torch.rand(1, 3, 64, 96)),
}


def with_random_norms(model: AnyModule) -> AnyModule:
    """As after a training: statistics and affine weights of their own in every norm."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
            norm.running_mean = torch.randn_like(norm.bias) * 0.3
            norm.running_var = torch.rand_like(norm.bias) + 0.5
    return model.eval()


def assert_close(ours: Any, expected: Any) -> None:
    """To 1e-5 of the largest value."""
    for one, other in zip(tensors(ours), tensors(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * other.abs().max().item())


def convolutions(model: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in model.modules())


def test_block_is_the_sum_of_two_convolutions_and_norms() -> None:
    block = with_random_norms(RepConv(4, 6))
    x = torch.randn(2, 4, 7, 9)
    total = torch.zeros(2, 6, 7, 9)
    for part in (block.conv3, block.conv1):
        padding = part.conv.kernel_size[0] // 2
        norm = part.norm
        values = F.conv2d(x, part.conv.weight, padding=padding)
        statistics = norm.running_mean, norm.running_var, norm.weight, norm.bias
        mean, var, weight, bias = (value[:, None, None] for value in statistics if value is not None)
        total = total + (values - mean) / (var + norm.eps).sqrt() * weight + bias
    torch.testing.assert_close(block(x), total * total.sigmoid())


def test_csp_adds_what_passed_by() -> None:
    block = with_random_norms(CSPRep(6, 8, depth=3))
    x = torch.randn(2, 6, 7, 9)
    assert isinstance(block.join, nn.Identity)  # as many channels inside as outside
    y = block.main(x)
    for rep in block.blocks:
        y = rep(y)
    torch.testing.assert_close(block(x), y + block.bypass(x))


def test_folded_block_is_one_convolution() -> None:
    block = with_random_norms(RepConv(4, 6))
    state = copy.deepcopy(block.state_dict())
    folded = block.folded()
    x = torch.randn(2, 4, 7, 9)
    assert [type(module) for module in folded] == [nn.Conv2d, nn.SiLU]
    assert not folded.training
    assert_close(folded(x), block(x))
    torch.testing.assert_close(block.state_dict(), state, rtol=0, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_folded_model_gives_the_same_numbers(name: str) -> None:
    build, inputs = MODELS[name]
    model = with_random_norms(build())
    folded = copy.deepcopy(model)
    blocks = [block for block, module in model.named_modules() if isinstance(module, RepConv)]
    fold(folded)
    with torch.no_grad():
        assert_close(folded(inputs), model(inputs))
        assert_close(copy.deepcopy(folded)(inputs), folded(inputs))
    assert blocks
    assert convolutions(folded) == convolutions(model) - len(blocks)
    others = {key: value for key, value in model.state_dict().items() if not key.startswith(tuple(blocks))}
    assert others.keys() == folded.state_dict().keys() - {
        f"{block}.0.{value}" for block in blocks for value in ("weight", "bias")
    }
    for key, value in others.items():
        assert torch.equal(folded.state_dict()[key], value), key


def test_folded_twice_is_folded_once() -> None:
    model = with_random_norms(hybrid_encoder())
    fold(model)
    once = list(model.state_dict())
    fold(model)
    assert list(model.state_dict()) == once


def test_training_is_refused() -> None:
    """Where norms follow the batch there is no such convolution; nothing is replaced."""
    model = hybrid_encoder().train()
    with pytest.raises(ValueError, match=r"training mode .* call eval\(\) first"):
        fold(model)
    assert any(isinstance(module, RepConv) for module in model.modules())


def test_expansion_leaves_a_channel() -> None:
    with pytest.raises(ValueError, match=r"expansion 0\.1 of 8 channels leaves none"):
        CSPRep(8, 8, expansion=0.1)
