"""Hungarian assignment: one query for each object, with the smallest sum of costs."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detkit.ops.boxes import cxcywh_norm_to_xyxy, xyxy_to_cxcywh_norm
from detkit.ops.iou import aligned_iou
from detkit.ops.precision import at_least_float32
from detkit.types import QueryOutput, Targets

# Beside the letters of types.py: O outputs (decoder layers and encoder).

LOG = logging.getLogger(__name__)
LOG_EPSILON = 1e-8  # keeps the logarithm of a saturated score finite
LARGEST = 1e30  # a larger cost is replaced like infinity: sums of such costs would overflow


class Pairs(NamedTuple):
    """The pairs of queries and objects for one output of the batch."""

    image_rows: Tensor  # (P,) int64 row of the batch
    query_rows: Tensor  # (P,) int64
    gt_rows: Tensor  # (P,) int64 the row of the ground truth among those of the batch


class HungarianAssigner:
    """One-to-one assignment by focal class cost, L1 of centres and sizes, and GIoU.

    Where an image has more objects than there are queries, the costliest objects get no query.

    Note [one wait per step]: the solver runs on the host. The costs of all outputs are copied to it together, and the
    pairs are copied back together. So a training step waits once for the device.

    A cost that is not finite, e.g. of a NaN prediction, is replaced by one above the sum of all finite costs: such a
    pair is made only if an object would get no query otherwise.

    Args:
        cls_weight: of the class cost.
        l1_weight: of the L1 distance of (centre, size) as fractions of the image.
        giou_weight: of -GIoU.
        alpha: weight of the positive part of the focal cost; the negative part has 1 - alpha.
        gamma: its exponent.

    Attributes:
        replaced_costs: number of costs that were not finite so far.

    Raises:
        ValueError: if a weight or gamma is negative, all weights are 0, or alpha lies outside [0, 1].

    Source: Carion et al., DETR, 2020, eqs. 1-2. https://arxiv.org/abs/2005.12872
        Zhu et al., Deformable DETR, 2021, §A.4 (focal class cost). https://arxiv.org/abs/2010.04159
    """

    def __init__(
        self,
        cls_weight: float = 2.0,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
    ) -> None:
        weights = (cls_weight, l1_weight, giou_weight)
        if min(weights) < 0 or not any(weights):
            raise ValueError(
                "weights must not be negative, nor all 0; "
                f"got cls_weight={cls_weight}, l1_weight={l1_weight}, giou_weight={giou_weight}"
            )
        if not 0 <= alpha <= 1 or gamma < 0:
            raise ValueError(f"alpha must lie in [0, 1] and gamma must not be negative; got {alpha=}, {gamma=}")
        self.cls_weight = cls_weight
        self.l1_weight = l1_weight
        self.giou_weight = giou_weight
        self.alpha = alpha
        self.gamma = gamma
        self.replaced_costs = 0

    @torch.no_grad()
    def __call__(self, outputs: Sequence[QueryOutput], targets: Targets, image_hw: tuple[int, int]) -> list[Pairs]:
        """Pair the queries of every output with the ground truth, separately for each output.

        Args:
            outputs: of one batch, with the same number of queries.
            targets: ground truth of the batch; crowd regions are left out.
            image_hw: pixels of the network input.

        Returns:
            The pairs of each output; an image has as many as objects, or as queries where these are fewer.

        Raises:
            ValueError: if the number of images of the targets differs.
        """
        images = len(outputs[0].logits)
        if targets.num_images != images:
            raise ValueError(f"each image needs a target; got {images} images and {targets.num_images} targets")
        if len(targets.labels) == 0:
            nothing = torch.zeros(0, dtype=torch.int64, device=outputs[0].logits.device)
            return [Pairs(nothing, nothing, nothing)] * len(outputs)
        # one output at a time, because all at once would need that many times the memory
        costs = [self._costs(output, targets, image_hw) for output in outputs]
        pairs_O3P = self._solve(_to_host(torch.stack(costs)), targets.box_counts)
        return [Pairs(*pairs_3P) for pairs_3P in _to_device(pairs_O3P, targets.labels.device)]

    def _costs(self, output: QueryOutput, targets: Targets, image_hw: tuple[int, int]) -> Tensor:
        """(G, Q) cost of each object with each query of its image."""
        image_G = targets.image_rows
        scores_GQ = at_least_float32(output.logits[image_G, :, targets.labels]).sigmoid()
        present_GQ = -self.alpha * (1 - scores_GQ) ** self.gamma * (scores_GQ + LOG_EPSILON).log()
        absent_GQ = -(1 - self.alpha) * scores_GQ**self.gamma * (1 - scores_GQ + LOG_EPSILON).log()
        queries_GQ4 = at_least_float32(output.boxes_cxcywh_norm[image_G])
        boxes_G14 = targets.boxes.to(queries_GQ4.dtype)[:, None]
        l1_GQ = (queries_GQ4 - xyxy_to_cxcywh_norm(boxes_G14, image_hw)).abs().sum(-1)
        giou_GQ = aligned_iou(cxcywh_norm_to_xyxy(queries_GQ4, image_hw), boxes_G14, "giou")
        return self.cls_weight * (present_GQ - absent_GQ) + self.l1_weight * l1_GQ - self.giou_weight * giou_GQ

    def _solve(self, costs_OGQ: np.ndarray, counts_B: np.ndarray) -> np.ndarray:
        """(O, 3, P) image, query and object of each pair."""
        usable_OGQ = np.abs(costs_OGQ) < LARGEST
        self._count_replaced(int((~usable_OGQ).sum()), costs_OGQ.size)
        ends_B = np.cumsum(counts_B)
        pairs = []
        for costs_GQ, usable_GQ in zip(costs_OGQ, usable_OGQ, strict=True):
            for image, (start, end) in enumerate(zip(ends_B - counts_B, ends_B, strict=True)):
                costs_NQ, usable_NQ = costs_GQ[start:end], usable_GQ[start:end]
                gt_P, query_P = linear_sum_assignment(_without_unusable(costs_NQ, usable_NQ))
                pairs.append(np.stack((np.full_like(gt_P, image), query_P, start + gt_P)))
        return np.stack(np.split(np.concatenate(pairs, axis=1), len(costs_OGQ), axis=1))

    def _count_replaced(self, replaced: int, total: int) -> None:
        """Count the replaced costs, and warn of the first ones on rank 0."""
        is_first = self.replaced_costs == 0
        self.replaced_costs += replaced
        if replaced and is_first and not (dist.is_available() and dist.is_initialized() and dist.get_rank()):
            LOG.warning(
                "%d of %d costs of pairing queries with objects are not finite: the predictions hold NaN or infinity. "
                "Such pairs are made last; once the loss is not finite the run stops. Try a lower optimizer.lr, a "
                "longer warm-up, or trainer.precision=bf16-mixed instead of 16-mixed. This warning appears once",
                replaced,
                total,
            )


def _without_unusable(costs_NQ: np.ndarray, usable_NQ: np.ndarray) -> np.ndarray:
    """The costs, with unusable ones replaced by one that is larger than any sum of the usable ones."""
    if usable_NQ.all():
        return costs_NQ
    usable = costs_NQ[usable_NQ].astype(np.float64)
    lowest, highest = (usable.min(), usable.max()) if usable.size else (0.0, 0.0)
    return np.where(usable_NQ, costs_NQ, highest + min(costs_NQ.shape) * (highest - lowest) + 1)


def _to_host(values: Tensor) -> np.ndarray:
    if not values.is_cuda:
        return values.cpu().numpy()
    pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    pinned.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    copied.synchronize()
    return pinned.numpy()


def _to_device(values: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(values)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
