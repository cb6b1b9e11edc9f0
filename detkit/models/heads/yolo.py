"""Decoupled, anchor-free head: one branch for the class, one for the box (and the objectness)."""

import math

import torch
from torch import Tensor, nn

from detkit.layers.conv import ConvNormAct, spatial_conv
from detkit.ops.points import anchor_points
from detkit.types import BoxCoding, FeatureSpec, YOLOPredictions


class YOLOHead(nn.Module):
    """Feature maps to class logits and box parameters for every anchor point.

    Args:
        in_specs: of the neck.
        num_classes: C.
        channels: of both branches; None: the channels of the finest level.
        depth: 3x3 convolutions of each branch.
        depthwise: depthwise convolutions in both branches.
        objectness: whether each point has a logit for the presence of any object.
        box_coding: see ``YOLOPredictions``; "offsets" needs num_bins = 1.
        num_bins: R; distances are expected values over the bins 0 .. R-1 (papers: reg_max = R-1),
            1 for plain regression.
        prior: score of every class before training, so that the many negatives start nearly right.

    Raises:
        ValueError: if num_classes or num_bins is less than 1, or the coding does not go with the bins.

    Source: Ge et al., YOLOX, 2021, fig. 2. https://arxiv.org/abs/2107.08430
        Bins: Li et al., Generalized Focal Loss, 2020, eq. 4. https://arxiv.org/abs/2006.04388
        Prior: Lin et al., Focal Loss, 2017, §4.1. https://arxiv.org/abs/1708.02002
    """

    def __init__(
        self,
        in_specs: list[FeatureSpec],
        num_classes: int,
        channels: int | None = None,
        depth: int = 2,
        depthwise: bool = False,
        objectness: bool = False,
        box_coding: BoxCoding = "distances",
        num_bins: int = 16,
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        if num_classes < 1 or num_bins < 1:
            raise ValueError(f"at least one class and one bin; got num_classes={num_classes}, num_bins={num_bins}")
        if box_coding == "offsets" and num_bins != 1:
            raise ValueError(f"box_coding offsets needs num_bins=1; got {num_bins}")
        width = channels or in_specs[0].channels
        self.num_classes = num_classes
        self.box_coding: BoxCoding = box_coding
        self.strides = [spec.stride for spec in in_specs]

        def branch() -> nn.Sequential:
            return nn.Sequential(*(spatial_conv(width, width, 3, depthwise=depthwise) for _ in range(depth)))

        self.stems = nn.ModuleList(ConvNormAct(spec.channels, width, 1) for spec in in_specs)
        self.class_branches = nn.ModuleList(branch() for _ in in_specs)
        self.box_branches = nn.ModuleList(branch() for _ in in_specs)
        self.class_logits = nn.ModuleList(_logits(width, num_classes, prior) for _ in in_specs)
        self.box_parameters = nn.ModuleList(nn.Conv2d(width, 4 * num_bins, 1) for _ in in_specs)
        self.objectness = nn.ModuleList(_logits(width, 1, prior) for _ in in_specs) if objectness else None

    def forward(self, features: list[Tensor]) -> YOLOPredictions:
        """One (B, channels, h, w) per level to raw predictions over all levels."""
        logits, boxes, objectness = [], [], []
        for level, feature in enumerate(features):
            x = self.stems[level](feature)
            box_features = self.box_branches[level](x)
            logits.append(_to_points(self.class_logits[level](self.class_branches[level](x))))
            boxes.append(_to_points(self.box_parameters[level](box_features)))
            if self.objectness is not None:
                objectness.append(_to_points(self.objectness[level](box_features)).squeeze(-1))
        sizes_hw = [(feature.shape[-2], feature.shape[-1]) for feature in features]
        points, strides = anchor_points(sizes_hw, self.strides, features[0].device)
        return YOLOPredictions(
            torch.cat(logits, dim=1),
            torch.cat(boxes, dim=1),
            torch.cat(objectness, dim=1) if objectness else None,
            points,
            strides,
            self.box_coding,
        )


def _logits(in_channels: int, out_channels: int, prior: float) -> nn.Conv2d:
    """A 1x1 convolution whose scores start at the prior."""
    layer = nn.Conv2d(in_channels, out_channels, 1)
    nn.init.constant_(layer.bias, -math.log((1 - prior) / prior))  # type: ignore[arg-type]
    return layer


def _to_points(maps: Tensor) -> Tensor:
    """(B, channels, h, w) to (B, h * w, channels)."""
    return maps.flatten(2).transpose(1, 2)
