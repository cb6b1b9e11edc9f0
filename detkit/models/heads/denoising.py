"""Queries made of the ground truth with noise, which the decoder learns to put right (contrastive denoising)."""

from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from detkit.ops.boxes import cxcywh_to_xyxy, inverse_sigmoid, xyxy_to_cxcywh, xyxy_to_cxcywh_norm
from detkit.ops.targets import pad_targets
from detkit.types import Targets


class Noise(NamedTuple):
    """How much noise the copies of the ground truth get.

    Args:
        num_queries: about how many noisy positives an image gets, over all groups.
        label: a label is replaced by a random one with half this probability.
        box: corners of positives move by up to this times half a side, those of negatives by up to twice that.
    """

    num_queries: int = 100
    label: float = 0.5
    box: float = 1.0


class NoisyQueries(NamedTuple):
    """Noisy copies of a batch's ground truth: each group holds all positives, then all negatives, each padded.

    Padding finds nothing and no loss counts it, but its group sees it, as in the authors' code.
    """

    labels: Tensor  # (B, Q) int64; the number of classes where there is padding
    box_logits: Tensor  # (B, Q, 4) cxcywh_norm before the sigmoid
    blocked: Tensor  # (Q + others, Q + others) True where a query (row) must not see another (column)
    image_rows: Tensor  # (P,) as in ``Denoising``
    query_rows: Tensor  # (P,)
    gt_rows: Tensor  # (P,)
    groups: int


def noisy_queries(
    targets: Targets, image_hw: tuple[int, int], num_classes: int, num_others: int, noise: Noise
) -> NoisyQueries | None:
    """Noisy copies of the ground truth; None without an object in the batch.

    Random numbers come from torch's generator of the targets' device, in this order: which labels change,
    new labels, signs, sizes.

    Args:
        targets: ground truth of the batch.
        image_hw: pixels of the network input.
        num_classes: C.
        num_others: queries that follow the noisy ones in the decoder, which must not see them.
        noise: its amount.

    Source: Zhang et al., DINO, 2022, §3.3; Zhao et al., RT-DETR, 2023 (code). https://arxiv.org/abs/2203.03605
    """
    counts = targets.box_counts.tolist()
    most = max(counts)
    if most == 0 or noise.num_queries == 0:
        return None
    groups = max(1, noise.num_queries // most)
    labels, boxes, is_object = pad_targets(targets)
    labels = labels.where(is_object, num_classes)
    is_padding = ~is_object.repeat(1, 2 * groups)
    slots = torch.arange(2 * groups * most, device=labels.device)
    is_negative = (slots // most % 2 == 1)[:, None]
    noisy_labels = _with_other_labels(labels.repeat(1, 2 * groups), is_padding, num_classes, noise.label)
    copies = xyxy_to_cxcywh_norm(boxes, image_hw).repeat(1, 2 * groups, 1)
    noisy_boxes = _with_moved_corners(copies, is_negative, noise.box)
    rows = [
        (image, group * 2 * most + row, start + row)
        for image, (start, count) in enumerate(zip(accumulate(counts, initial=0), counts, strict=False))
        for group in range(groups)
        for row in range(count)
    ]
    image_rows, query_rows, gt_rows = torch.tensor(rows).to(labels.device, non_blocking=True).unbind(1)
    blocked = _blocked(len(slots), 2 * most, num_others, labels.device)
    return NoisyQueries(noisy_labels, inverse_sigmoid(noisy_boxes), blocked, image_rows, query_rows, gt_rows, groups)


def _with_other_labels(labels: Tensor, is_padding: Tensor, num_classes: int, label_noise: float) -> Tensor:
    if label_noise == 0:
        return labels
    is_drawn = torch.rand(labels.shape, device=labels.device) < label_noise / 2
    drawn = torch.randint(num_classes, labels.shape, device=labels.device)
    return torch.where(is_drawn & ~is_padding, drawn, labels)


def _with_moved_corners(boxes_cxcywh_norm: Tensor, is_negative: Tensor, box_noise: float) -> Tensor:
    """Corners of positives moved by 0 to 1, of negatives by 1 to 2 times half a side; inside of the image."""
    if box_noise == 0:
        return boxes_cxcywh_norm
    half_sides = boxes_cxcywh_norm[..., 2:].repeat(1, 1, 2) / 2
    signs = torch.randint(0, 2, half_sides.shape, device=half_sides.device, dtype=half_sides.dtype) * 2 - 1
    sizes = torch.rand(half_sides.shape, device=half_sides.device, dtype=half_sides.dtype) + is_negative
    moved = cxcywh_to_xyxy(boxes_cxcywh_norm) + signs * sizes * half_sides * box_noise
    return xyxy_to_cxcywh(moved.clamp(0, 1))


def _blocked(num_noisy: int, group_size: int, num_others: int, device: torch.device) -> Tensor:
    """A group sees itself and the other queries; those see none of the groups, which would tell them the answer."""
    group = torch.cat(
        (torch.arange(num_noisy, device=device) // group_size, torch.full((num_others,), -1, device=device))
    )
    return (group[:, None] != group) & (group != -1)
