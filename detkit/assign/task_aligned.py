"""Task-aligned assignment: positives are the points with the best product of class score and IoU."""

import torch
import torch.nn.functional as F
from torch import Tensor

from detkit.assign.assignment import Assignment
from detkit.ops.iou import aligned_iou
from detkit.ops.precision import at_least_float32
from detkit.types import Targets


class TaskAlignedAssigner:
    """One-to-many assignment by the alignment ``score^alpha * iou^beta`` of each pair.

    Args:
        top_k: positives of each ground truth, at most.
        alpha: exponent of the class score.
        beta: exponent of the IoU.
        min_size_in_strides: a smaller ground truth is widened to this many cells when looking for
            the points inside it, so that none stays without a candidate.

    Raises:
        ValueError: if top_k is less than 1 or an exponent is negative.

    Source: Feng et al., TOOD, 2021, §3.2, eqs. 7-8. https://arxiv.org/abs/2108.07755
        Differs from the paper in: small boxes are widened; a pair without overlap is never chosen.
    """

    def __init__(
        self, top_k: int = 10, alpha: float = 0.5, beta: float = 6.0, min_size_in_strides: float = 2.0
    ) -> None:
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1; got {top_k}")
        if alpha < 0 or beta < 0:
            raise ValueError(f"exponents must not be negative; got alpha={alpha}, beta={beta}")
        self.top_k = top_k
        self.alpha = alpha
        self.beta = beta
        self.min_size_in_strides = min_size_in_strides

    @torch.no_grad()
    def __call__(
        self, scores_BAC: Tensor, boxes_BA4: Tensor, points_A2: Tensor, strides_A: Tensor, targets: Targets
    ) -> Assignment:
        """Pair points with ground truth.

        Args:
            scores_BAC: class probabilities.
            boxes_BA4: predicted boxes, pixels.
            points_A2: centres of the cells, pixels.
            strides_A: pixels per cell.
            targets: ground truth of the batch; crowd boxes are not used.

        Returns:
            The assignment; ``quality_BA`` is the alignment, scaled for each ground truth so that its
            best point gets its best IoU.
        """
        num_points = points_A2.shape[0]
        scores_BAC, boxes_BA4 = at_least_float32(scores_BAC), at_least_float32(boxes_BA4)
        empty = scores_BAC.new_zeros(scores_BAC.shape[:2])
        image_G, gt_boxes_G4 = targets.image_rows, targets.boxes.to(boxes_BA4.dtype)
        if len(image_G) == 0:
            return Assignment(empty.bool(), empty.long(), empty)
        pair_gt, pair_point = self._candidates(gt_boxes_G4, points_A2, strides_A)  # Q pairs
        iou_Q, alignment_Q = self._alignment(
            scores_BAC, boxes_BA4, targets.labels, gt_boxes_G4, image_G, pair_gt, pair_point
        )
        chosen = _top_k_of_each(alignment_Q, pair_gt, len(image_G), self.top_k)
        pair_gt, pair_point, iou_Q, alignment_Q = (x[chosen] for x in (pair_gt, pair_point, iou_Q, alignment_Q))

        # a point chosen by several ground truths of its image goes to the one that it overlaps most; of equal ones to
        # the first, since a GPU would take index and quality each from any of them
        slot_Q = image_G[pair_gt] * num_points + pair_point
        order_Q = torch.arange(len(slot_Q), device=empty.device)
        best_iou = iou_Q.new_full((empty.numel(),), -1.0).scatter_reduce(0, slot_Q, iou_Q, "amax")
        candidate_Q = order_Q.masked_fill(~(iou_Q >= best_iou[slot_Q]), len(order_Q))
        first = order_Q.new_full((empty.numel(),), len(order_Q)).scatter_reduce(0, slot_Q, candidate_Q, "amin")
        wins = first[slot_Q] == order_Q
        pair_gt, slot_Q, iou_Q, alignment_Q = (x[wins] for x in (pair_gt, slot_Q, iou_Q, alignment_Q))

        zeros_G = alignment_Q.new_zeros(len(image_G))
        best_alignment_G = zeros_G.scatter_reduce(0, pair_gt, alignment_Q, "amax")
        best_iou_G = zeros_G.scatter_reduce(0, pair_gt, iou_Q, "amax")
        quality_Q = alignment_Q / best_alignment_G[pair_gt].clamp(min=1e-9) * best_iou_G[pair_gt]

        positive, gt_index, quality = empty.bool().flatten(), empty.long().flatten(), empty.flatten().clone()
        positive[slot_Q] = True
        gt_index[slot_Q] = pair_gt
        quality[slot_Q] = quality_Q
        return Assignment(*(x.view_as(empty) for x in (positive, gt_index, quality)))

    def _candidates(self, gt_boxes_G4: Tensor, points_A2: Tensor, strides_A: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs (ground truth, point) with the point inside the box, or near the centre of a small one."""
        centres_G2 = (gt_boxes_G4[:, :2] + gt_boxes_G4[:, 2:]) / 2
        halves_G2 = (gt_boxes_G4[:, 2:] - gt_boxes_G4[:, :2]) / 2
        offsets_GA2 = (points_A2 - centres_G2[:, None]).abs_()
        widened_GA2 = torch.maximum(halves_G2[:, None], (strides_A * (self.min_size_in_strides / 2))[:, None])
        pairs_Q2 = (offsets_GA2 < widened_GA2).all(-1).nonzero()
        return pairs_Q2[:, 0], pairs_Q2[:, 1]

    def _alignment(
        self,
        scores_BAC: Tensor,
        boxes_BA4: Tensor,
        gt_labels_G: Tensor,
        gt_boxes_G4: Tensor,
        image_G: Tensor,
        pair_gt: Tensor,
        pair_point: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """IoU and alignment of each candidate pair."""
        image_Q = image_G[pair_gt]
        iou_Q = aligned_iou(boxes_BA4[image_Q, pair_point], gt_boxes_G4[pair_gt])
        scores_Q = scores_BAC[image_Q, pair_point, gt_labels_G[pair_gt]]
        return iou_Q, scores_Q.pow(self.alpha) * iou_Q.pow(self.beta)


def _top_k_of_each(values_Q: Tensor, group_Q: Tensor, num_groups: int, k: int) -> Tensor:
    """Rows of the k largest positive values of every group; groups come sorted, as nonzero gives them."""
    counts_G = torch.bincount(group_Q, minlength=num_groups)
    starts_G = F.pad(counts_G.cumsum(0)[:-1], (1, 0))
    width = int(counts_G.max())
    position_Q = torch.arange(len(values_Q), device=values_Q.device) - starts_G[group_Q]
    table_GW = values_Q.new_full((num_groups, width), -1.0)
    table_GW[group_Q, position_Q] = values_Q
    top_Gk = table_GW.topk(min(k, width), dim=1)
    rows_Gk = starts_G[:, None] + top_Gk.indices
    return rows_Gk[top_Gk.values > 0].sort().values
