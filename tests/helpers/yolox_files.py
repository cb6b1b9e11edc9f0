"""YOLOX detectors as their recipes build them, the reference record, and weights with official names."""

import math
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detkit import recipe
from detkit.models import Detector

MULTIPLES = {  # depth, width
    "nano": (0.33, 0.25),
    "tiny": (0.33, 0.375),
    "s": (0.33, 0.5),
    "m": (0.67, 0.75),
    "l": (1.0, 1.0),
    "x": (1.33, 1.25),
}


def detector_of(size: str, num_classes: int = 80) -> Detector:
    """The model of a yolox recipe, untrained."""
    model = recipe.load([f"recipe=yolox_{size}"]).config["model"]
    return recipe.instantiate({**model, "head": {**model["head"], "num_classes": num_classes}})


def read_record(folder: Path) -> dict[str, Any]:
    """The reference record; weights that it names but does not store come out of their names and its seed."""
    record = torch.load(folder / "yolox_tiny.pt", weights_only=True)
    for name, (shape, seed, factor) in record.pop("made").items():
        generator = torch.Generator().manual_seed((zlib.crc32(name.encode()) ^ (seed * 0x9E3779B1)) & 0x7FFFFFFF)
        weights = torch.randn(shape, generator=generator) * math.sqrt(factor / math.prod(shape[1:]))
        record["state_dict"][name] = weights
    return record


class OfficialShapes(dict[str, tuple[int, ...]]):
    """Names and shapes of an official state_dict, written from the description of the architecture."""

    def __init__(self, size: str, num_classes: int = 80) -> None:
        super().__init__()
        depth, width = MULTIPLES[size]
        self.depthwise = size == "nano"
        repeats = max(round(3 * depth), 1)
        base, c3, c4, c5 = (int(channels * width) for channels in (64, 256, 512, 1024))
        self.conv("backbone.backbone.stem.conv", 12, base, 3)
        for stage, (channels, bottlenecks) in enumerate(((2, repeats), (4, 3 * repeats), (8, 3 * repeats)), start=2):
            self.spatial(f"backbone.backbone.dark{stage}.0", base * channels // 2, base * channels)
            self.csp(f"backbone.backbone.dark{stage}.1", base * channels, base * channels, bottlenecks)
        self.spatial("backbone.backbone.dark5.0", c4, c5)
        self.conv("backbone.backbone.dark5.1.conv1", c5, c5 // 2)
        self.conv("backbone.backbone.dark5.1.conv2", 2 * c5, c5)
        self.csp("backbone.backbone.dark5.2", c5, c5, repeats)
        self.conv("backbone.lateral_conv0", c5, c4)
        self.csp("backbone.C3_p4", 2 * c4, c4, repeats)
        self.conv("backbone.reduce_conv1", c4, c3)
        self.csp("backbone.C3_p3", 2 * c3, c3, repeats)
        self.spatial("backbone.bu_conv2", c3, c3)
        self.csp("backbone.C3_n3", 2 * c3, c4, repeats)
        self.spatial("backbone.bu_conv1", c4, c4)
        self.csp("backbone.C3_n4", 2 * c4, c5, repeats)
        for level, channels in enumerate((c3, c4, c5)):
            self.conv(f"head.stems.{level}", channels, c3)
            for branch in ("cls_convs", "reg_convs"):
                self.spatial(f"head.{branch}.{level}.0", c3, c3)
                self.spatial(f"head.{branch}.{level}.1", c3, c3)
            for layer, rows in (("cls_preds", num_classes), ("reg_preds", 4), ("obj_preds", 1)):
                self[f"head.{layer}.{level}.weight"], self[f"head.{layer}.{level}.bias"] = (rows, c3, 1, 1), (rows,)

    def conv(self, name: str, in_channels: int, out_channels: int, kernel: int = 1, groups: int = 1) -> None:
        self[f"{name}.conv.weight"] = (out_channels, in_channels // groups, kernel, kernel)
        for statistic in ("weight", "bias", "running_mean", "running_var"):
            self[f"{name}.bn.{statistic}"] = (out_channels,)
        self[f"{name}.bn.num_batches_tracked"] = ()

    def spatial(self, name: str, in_channels: int, out_channels: int) -> None:
        if self.depthwise:
            self.conv(f"{name}.dconv", in_channels, in_channels, 3, groups=in_channels)
            self.conv(f"{name}.pconv", in_channels, out_channels)
        else:
            self.conv(name, in_channels, out_channels, 3)

    def csp(self, name: str, in_channels: int, out_channels: int, bottlenecks: int) -> None:
        hidden = out_channels // 2
        self.conv(f"{name}.conv1", in_channels, hidden)
        self.conv(f"{name}.conv2", in_channels, hidden)
        self.conv(f"{name}.conv3", 2 * hidden, out_channels)
        for number in range(bottlenecks):
            self.conv(f"{name}.m.{number}.conv1", hidden, hidden)
            self.spatial(f"{name}.m.{number}.conv2", hidden, hidden)


def official_weights(size: str, num_classes: int = 80) -> dict[str, Tensor]:
    """Small random weights under official names."""
    rng = torch.Generator().manual_seed(0)
    return {
        name: torch.tensor(7) if name.endswith("tracked") else torch.rand(shape, generator=rng) * 0.1
        for name, shape in OfficialShapes(size, num_classes).items()
    }
