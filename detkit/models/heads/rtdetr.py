"""The head of RT-DETR: the best cells become queries, and a decoder turns these into objects, layer by layer."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from detkit.layers.attention import DecoderLayer
from detkit.layers.conv import ConvNormAct, use_norm
from detkit.layers.deformable import Sampling
from detkit.models.heads.denoising import Noise, NoisyQueries, noisy_queries
from detkit.ops.boxes import inverse_sigmoid
from detkit.ops.points import anchor_points
from detkit.ops.precision import at_least_float32
from detkit.types import Denoising, DETRPredictions, FeatureSpec, QueryOutput, Targets

FINEST_ANCHOR = 0.05  # side of the boxes that cells of the finest level start from; doubles from level to level
MARGIN = 0.01  # cells nearer to the border than this, as a fraction of the image, become no queries
PRIOR = 0.01  # score of every class before training


class RTDETRHead(nn.Module):
    """Feature maps to queries with class logits and boxes; no query finds what another one found.

    Args:
        in_specs: of the neck, finest level first.
        num_classes: C.
        channels: of the queries.
        num_queries: Q; the cells with the best class scores become queries.
        num_layers: of the decoder.
        num_heads: of its attentions.
        num_points: that a head of a query samples per level: one number, or one for each level.
        feedforward: channels inside the decoder's layers.
        sampling: see ``DeformableAttention``; "discrete" is a form of RT-DETRv2.
        num_denoising: about how many noisy positives an image gets while there are targets; 0: none.
        label_noise: twice the probability that one's label is drawn anew.
        box_noise: their corners move by up to this times half a side.
        inference_layers: without targets only so many layers run: faster with the same weights.
        inference_queries: without targets only so many queries are made.

    Raises:
        ValueError: if a number is too small, num_points is not one for each level, channels are no multiple of
            num_heads, or the sampling is another word.

    Source: Zhao et al., RT-DETR, 2023, §4.3. https://arxiv.org/abs/2304.08069
        Points per level, discrete sampling: Lv et al., RT-DETRv2, 2024. https://arxiv.org/abs/2407.17140
        Boxes refined twice: Zhang et al., DINO, 2022, §3.5 (look forward twice). https://arxiv.org/abs/2203.03605
    """

    takes_targets = True

    def __init__(  # noqa: PLR0913, flat, so that each is one short override
        self,
        in_specs: list[FeatureSpec],
        num_classes: int,
        *,
        channels: int = 256,
        num_queries: int = 300,
        num_layers: int = 6,
        num_heads: int = 8,
        num_points: int | Sequence[int] = 4,
        feedforward: int = 1024,
        sampling: Sampling = "bilinear",
        num_denoising: int = 100,
        label_noise: float = 0.5,
        box_noise: float = 1.0,
        inference_layers: int | None = None,
        inference_queries: int | None = None,
    ) -> None:
        super().__init__()
        points = [num_points] * len(in_specs) if isinstance(num_points, int) else list(num_points)
        layers = num_layers if inference_layers is None else inference_layers
        queries = num_queries if inference_queries is None else inference_queries
        if min(num_classes, num_queries, num_layers, queries) < 1 or not 1 <= layers <= num_layers:
            raise ValueError(
                "classes, queries and layers must be at least 1, and no more layers run than there are; got "
                f"num_classes={num_classes}, num_queries={num_queries}, num_layers={num_layers}, "
                f"inference_layers={inference_layers}, inference_queries={inference_queries}"
            )
        if min(num_denoising, label_noise, box_noise) < 0:
            raise ValueError(
                "denoising and its noise must not be negative; "
                f"got num_denoising={num_denoising}, label_noise={label_noise}, box_noise={box_noise}"
            )
        if len(points) != len(in_specs):
            raise ValueError(f"num_points must be one for each of the {len(in_specs)} levels; got {points}")
        self.num_classes, self.num_queries = num_classes, num_queries
        self.inference_layers, self.inference_queries = layers, queries
        self.noise = Noise(num_denoising, label_noise, box_noise)
        self.stride = in_specs[0].stride

        self.project = nn.ModuleList(ConvNormAct(spec.channels, channels, 1, activation=False) for spec in in_specs)
        use_norm(self, eps=1e-5, momentum=0.1)
        self.cell_features = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels))
        self.cell_logits = _class_layer(channels, num_classes)
        self.cell_boxes = _box_layers(channels)
        self.noisy_classes = nn.Embedding(num_classes + 1, channels, padding_idx=num_classes) if num_denoising else None
        self.positions = _mlp(4, 2 * channels, channels)
        self.layers = nn.ModuleList(
            DecoderLayer(channels, num_heads, points, feedforward, sampling) for _ in range(num_layers)
        )
        self.class_logits = nn.ModuleList(_class_layer(channels, num_classes) for _ in range(num_layers))
        self.box_offsets = nn.ModuleList(_box_layers(channels) for _ in range(num_layers))
        for layer in (self.cell_features[0], *self.positions):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)

    def forward(self, features: list[Tensor], targets: Targets | None = None) -> DETRPredictions:
        """One (B, channels, h, w) per level to raw predictions.

        Args:
            features: of the neck.
            targets: make noisy queries of them beside the others, and run all layers.
        """
        image_hw = (features[0].shape[-2] * self.stride, features[0].shape[-1] * self.stride)
        sizes_hw = [(feature.shape[-2], feature.shape[-1]) for feature in features]
        maps = [project(feature) for project, feature in zip(self.project, features, strict=True)]
        memory = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)
        queries, reference_logits, encoder = self._select(memory, sizes_hw, targets is not None)
        noisy = None
        if targets is not None and self.noisy_classes is not None:
            noisy = noisy_queries(targets, image_hw, self.num_classes, queries.shape[1], self.noise)
            queries, reference_logits = _joined(queries, reference_logits, self.noisy_classes, noisy)
        num_layers = self.inference_layers if targets is None else len(self.layers)
        blocked = None if noisy is None else noisy.blocked
        outputs = self._decode(queries, reference_logits.sigmoid(), memory, sizes_hw, blocked, num_layers)
        return _predictions(outputs, encoder, noisy, image_hw)

    def _select(
        self, memory: Tensor, sizes_hw: list[tuple[int, int]], is_training: bool
    ) -> tuple[Tensor, Tensor, QueryOutput]:
        """The best cells: their features and box logits without gradient, and their predictions with gradient."""
        anchors, is_valid = _anchors(sizes_hw, memory)
        cells = self.cell_features(memory * is_valid)
        logits = self.cell_logits(cells)
        wanted = self.num_queries if is_training else self.inference_queries
        best = logits.max(-1).values.topk(min(wanted, logits.shape[1]), dim=1).indices[..., None]
        queries = cells.gather(1, best.expand(-1, -1, cells.shape[-1]))
        box_logits = self.cell_boxes(queries) + anchors[best.squeeze(-1)]
        chosen = QueryOutput(logits.gather(1, best.expand(-1, -1, logits.shape[-1])), box_logits.sigmoid())
        return queries.detach(), box_logits.detach(), chosen

    def _decode(
        self,
        queries: Tensor,
        reference: Tensor,
        memory: Tensor,
        sizes_hw: list[tuple[int, int]],
        blocked: Tensor | None,
        num_layers: int,
    ) -> list[QueryOutput]:
        """Each layer moves the boxes of the one before.

        Note [look forward twice]: the box that a layer returns has the gradient of the box before it, so a
        box layer learns from its own output and from the next one. The reference, where the next layer
        samples, has no gradient.
        """
        outputs: list[QueryOutput] = []
        former = reference
        for number in range(num_layers):
            positions = self.positions(reference.to(queries.dtype))
            queries = self.layers[number](queries, positions, reference, memory, sizes_hw, blocked)
            offsets = at_least_float32(self.box_offsets[number](queries))
            boxes = (offsets + inverse_sigmoid(reference)).sigmoid()
            returned = boxes if number == 0 else (offsets + inverse_sigmoid(former)).sigmoid()
            outputs.append(QueryOutput(self.class_logits[number](queries), returned))
            former, reference = boxes, boxes.detach()
        return outputs


def _anchors(sizes_hw: list[tuple[int, int]], like: Tensor) -> tuple[Tensor, Tensor]:
    """(cells, 4) logits of the box that each cell starts from, and (cells, 1) whether it lies inside the margin."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    levels = []
    for number, (height, width) in enumerate(sizes_hw):
        x, y = anchor_points([(height, width)], [1], like.device)[0].to(dtype).unbind(1)
        side = torch.full_like(x, FINEST_ANCHOR * 2**number)
        levels.append(torch.stack((x / width, y / height, side, side), dim=1))
    boxes = torch.cat(levels)
    is_valid = ((boxes > MARGIN) & (boxes < 1 - MARGIN)).all(-1, keepdim=True)
    return torch.where(is_valid, boxes.logit(), math.inf), is_valid


def _joined(
    queries: Tensor, reference_logits: Tensor, classes: nn.Embedding, noisy: NoisyQueries | None
) -> tuple[Tensor, Tensor]:
    """The noisy queries before the others.

    Without any, the classes take part with a weight of 0: every parameter has a gradient in every step, on
    every rank.
    """
    if noisy is None:
        return queries + 0 * classes.weight.sum(), reference_logits
    return torch.cat((classes(noisy.labels), queries), dim=1), torch.cat((noisy.box_logits, reference_logits), dim=1)


def _predictions(
    outputs: list[QueryOutput], encoder: QueryOutput, noisy: NoisyQueries | None, image_hw: tuple[int, int]
) -> DETRPredictions:
    if noisy is None:
        return DETRPredictions(outputs, encoder, None, image_hw)
    count = noisy.labels.shape[1]
    of_noise = [QueryOutput(*(values[:, :count] for values in output)) for output in outputs]
    others = [QueryOutput(*(values[:, count:] for values in output)) for output in outputs]
    denoising = Denoising(of_noise, noisy.image_rows, noisy.query_rows, noisy.gt_rows, noisy.groups)
    return DETRPredictions(others, encoder, denoising, image_hw)


def _class_layer(channels: int, num_classes: int) -> nn.Linear:
    layer = nn.Linear(channels, num_classes)
    nn.init.constant_(layer.bias, -math.log((1 - PRIOR) / PRIOR))
    return layer


def _box_layers(channels: int) -> nn.Module:
    """Three linear layers whose output starts as zero: no change of the box."""
    layers = _mlp(channels, channels, channels, 4)
    for parameter in layers[-1].parameters():
        nn.init.zeros_(parameter)
    return layers


def _mlp(*channels: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
