"""What every backbone promises, as checks that raise AssertionError: whoever writes a backbone calls them all."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn


def check_all(backbone: Any, export: bool = True) -> None:
    """Every check of one backbone; without the export, which takes longest, if told so."""
    check_specs(backbone, (64, 64))
    check_specs(backbone, (64, 128))
    check_every_parameter_learns(backbone)
    check_images_apart(backbone)
    check_bfloat16(backbone)
    if export:
        check_export(backbone)


def check_specs(backbone: Any, size_hw: tuple[int, int]) -> None:
    """``out_specs`` tell the truth: shapes, finest first, each under a name of its own."""
    with torch.no_grad():
        features = backbone.eval()(_images(size_hw))
    assert shapes(features) == promised(backbone, size_hw)
    strides = [spec.stride or float("inf") for spec in backbone.out_specs]
    assert all(fine <= coarse for fine, coarse in pairwise(strides)), f"not finest first: {strides}"
    names = [spec.name for spec in backbone.out_specs]
    assert all(names) and len(set(names)) == len(names), f"names must tell the maps apart: {names}"


def check_every_parameter_learns(backbone: Any) -> None:
    """No parameter stays without a gradient, so none is built in vain (and DDP need not look for such)."""
    backbone.train().zero_grad()
    total(backbone(_images(_size_hw(backbone)))).backward()
    assert silent_parameters(backbone) == []


def check_images_apart(backbone: Any) -> None:
    """In evaluation the features of an image do not depend on the other images of its batch."""
    backbone.eval()
    images = _images(_size_hw(backbone))
    changed = torch.stack([images[0], images[1].flip(-1)])
    with torch.no_grad():
        for before, after in zip(backbone(images), backbone(changed), strict=True):
            torch.testing.assert_close(before[0], after[0])
            assert not torch.equal(before[1], after[1]), "the features do not depend on the image"


def check_bfloat16(backbone: Any) -> None:
    """Under autocast, as in training: finite, and of the promised shapes."""
    size_hw = _size_hw(backbone)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        features = backbone.train()(_images(size_hw))
    assert shapes(features) == promised(backbone, size_hw)
    assert all(feature.isfinite().all() for feature in features)


def check_export(backbone: Any) -> None:
    """``torch.export`` takes it, and the exported program gives the same features."""
    images = _images(_size_hw(backbone))
    exported = torch.export.export(backbone.eval(), (images,)).module()
    with torch.no_grad():
        for out, wanted in zip(exported(images), backbone(images), strict=True):
            torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())


def check_out_levels(build: Callable[..., Any]) -> None:
    """Fewer levels are the same maps as among all, from the same weights.

    Args:
        build: called with nothing for all levels, and with ``out_levels`` for the chosen ones.
    """
    every = build().eval()
    images = _images(_size_hw(every))
    with torch.no_grad():
        maps = {spec.name: feature for spec, feature in zip(every.out_specs, every(images), strict=True)}
        finest, coarsest = every.out_specs[0].name, every.out_specs[-1].name
        for chosen in ([finest], [coarsest], [finest, coarsest][: len(maps)]):
            fewer = build(out_levels=chosen).eval()
            assert fewer.out_specs == [spec for spec in every.out_specs if spec.name in chosen]
            weights = every.state_dict()
            fewer.load_state_dict({name: weights[name] for name in fewer.state_dict()})
            for name, feature in zip(chosen, fewer(images), strict=True):
                torch.testing.assert_close(feature, maps[name])


def tensors(outputs: Any) -> list[Tensor]:
    """Those of features or predictions, however deep they lie in lists and tuples."""
    if isinstance(outputs, Tensor):
        return [outputs]
    return [tensor for part in outputs for tensor in tensors(part)] if isinstance(outputs, (list, tuple)) else []


def total(outputs: Any) -> Tensor:
    """A number on which every value of features or predictions that has a gradient has a say of its own."""
    rng = torch.Generator().manual_seed(1)
    values = [tensor for tensor in tensors(outputs) if tensor.requires_grad]
    return torch.stack([(value * torch.randn(value.shape, generator=rng)).mean() for value in values]).sum()


def trained_a_little(module: nn.Module) -> nn.Module:
    """The same, changed in place, with no weight left at the zero where it started, behind which nothing learns."""
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=rng), alpha=0.1)
    return module


def silent_parameters(module: nn.Module) -> list[str]:
    """Names of the parameters that want a gradient and got none, or only zeros."""
    wanting = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    return [name for name, p in wanting if p.grad is None or not p.grad.any()]


def shapes(features: list[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(feature.shape) for feature in features]


def promised(backbone: Any, size_hw: tuple[int, int], images: int = 2) -> list[tuple[int, ...]]:
    """The shapes that ``out_specs`` promise; stride 0 is one vector for each image."""
    height, width = size_hw
    return [
        (images, s.channels, height // s.stride, width // s.stride) if s.stride else (images, s.channels)
        for s in backbone.out_specs
    ]


def _size_hw(backbone: Any) -> tuple[int, int]:
    """Small, yet with at least two cells by two at the coarsest level: one cell alone leaves batch norm nothing."""
    side = max(64, 2 * max(spec.stride for spec in backbone.out_specs))
    return side, side


def _images(size_hw: tuple[int, int], images: int = 2) -> Tensor:
    return torch.rand(images, 3, *size_hw, generator=torch.Generator().manual_seed(0))
