"""RT-DETR detectors of all published sizes, the same in transformers, and random weights that are no trap."""

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrResNetConfig,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
)

from detkit import recipe
from detkit.models import Detector

GAINS = {"sampling_offsets": 0.3, "decoder.layers": 0.7, "bbox": 0.7}  # less: a change grows from layer to layer


class Size(NamedTuple):
    """What sizes differ in, for the port."""

    depths: tuple[int, ...]
    is_basic: bool  # two convolutions in a block, and norms of the backbone that learn
    channels: int = 256  # of the neck
    feedforward: int = 1024
    expansion: float = 1.0
    layers: int = 6


SIZES = {
    "r18": Size((2, 2, 2, 2), True, expansion=0.5, layers=3),
    "r34": Size((3, 4, 6, 3), True, expansion=0.5, layers=4),
    "r50": Size((3, 4, 6, 3), False),
    "r101": Size((3, 4, 23, 3), False, channels=384, feedforward=2048),
}


def detector_of(name: str, *overrides: str) -> Detector:
    """The model of a recipe such as rtdetr_r18, untrained; 80 classes if no override says another number."""
    arguments = [f"recipe={name}", "data.root=data/coco", "model.head.num_classes=80", *overrides]
    return recipe.instantiate(recipe.load(arguments).config["model"])


def port_of(name: str, **config: Any) -> Any:
    """The same in transformers, in evaluation mode, with random weights."""
    family, size = name.split("_")
    of = SIZES[size]
    channels = [64, 128, 256, 512] if of.is_basic else [256, 512, 1024, 2048]
    kind = "basic" if of.is_basic else "bottleneck"
    stages: dict[str, Any] = {"hidden_sizes": channels, "depths": list(of.depths), "out_indices": [2, 3, 4]}
    backbone = RTDetrResNetConfig(layer_type=kind, **stages)
    settings = {
        "backbone_config": backbone,
        "encoder_in_channels": channels[1:],
        "freeze_backbone_batch_norms": not of.is_basic,
        "encoder_hidden_dim": of.channels,
        "encoder_ffn_dim": of.feedforward,
        "hidden_expansion": of.expansion,
        "decoder_in_channels": [of.channels] * 3,
        "decoder_layers": of.layers,
        "num_labels": 80,
        **config,
    }
    port = (
        RTDetrForObjectDetection(RTDetrConfig(**settings))
        if family == "rtdetr"
        else RTDetrV2ForObjectDetection(RTDetrV2Config(**settings))
    )
    fill(port)
    return port


@torch.no_grad()
def fill(model: nn.Module, seed: int = 0) -> None:
    """Random weights under which cells and queries differ, boxes move, and numbers stay of one size."""
    rng = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        noise = torch.randn(tensor.shape, generator=rng)
        if tensor.ndim >= 2:
            gain = next((gain for part, gain in GAINS.items() if part in name), 1.0)
            values = gain * noise / math.sqrt(tensor[0].numel())
        elif name.endswith(("norm.weight", "normalization.weight", "1.weight")):
            values = 0.75 + 0.5 * torch.rand(tensor.shape, generator=rng)
        elif "sampling_offsets" in name:
            values = tensor + noise
        elif name.endswith(".bias"):
            values = 0.2 * noise
        else:  # statistics, counters, and scales by the number of points
            continue
        tensor.copy_(values)

    def see(norm: Any, inputs: tuple[Tensor]) -> None:
        """Statistics near those of an image, as after training."""
        of_channels = inputs[0].transpose(0, 1).flatten(1)
        noise = torch.rand(len(of_channels), generator=rng)
        norm.running_var.copy_(of_channels.var(1) * (0.75 + 0.5 * noise))
        norm.running_mean.copy_(of_channels.mean(1) + 0.2 * of_channels.std(1) * (noise - 0.5))

    norms = [module for module in model.modules() if hasattr(module, "running_var")]
    hooks = [norm.register_forward_pre_hook(see) for norm in norms]
    model.eval()(image_of(128, 128))
    for hook in hooks:
        hook.remove()


def image_of(height: int, width: int, count: int = 2) -> Tensor:
    """Blobs of several sizes in [0, 1], so that no two cells see the same."""
    rng = torch.Generator().manual_seed(0)
    scales = [torch.rand(count, 3, height // cell, width // cell, generator=rng) for cell in (32, 8, 2)]
    return torch.stack([nn.functional.interpolate(scale, (height, width)) for scale in scales]).mean(0)


def shapes_of(folder: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a published file, e.g. "rtdetr_r18_official"."""
    listed = json.loads((folder / "keys" / f"keys_{name}.json").read_text())
    return {key: tuple(shape[0] if shape and isinstance(shape[0], list) else shape) for key, shape in listed.items()}


@cache
def random_file(folder: Path, name: str) -> Mapping[str, Tensor]:
    """Random weights under the names of a published file."""
    rng = torch.Generator().manual_seed(0)
    weights = {}
    for key, shape in shapes_of(folder, name).items():
        noise = torch.rand(shape, generator=rng)
        if key.endswith("tracked"):
            weights[key] = torch.tensor(7)
        else:
            weights[key] = (2 * noise - 1) / math.sqrt(noise[0].numel()) if len(shape) > 1 else 0.5 + noise
    return MappingProxyType(weights)
