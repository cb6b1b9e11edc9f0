"""SimOTA: each object gets its cheapest points; their number grows with the IoUs of its predictions."""

import torch
from torch import Tensor

from detkit.assign.assignment import Assignment
from detkit.ops.boxes import xyxy_to_cxcywh
from detkit.ops.iou import aligned_iou
from detkit.ops.precision import at_least_float32
from detkit.types import Targets

FAR = 1e6  # added cost of a point outside the object's centre square: used only if too few are inside
LOWEST_LOG = -100.0  # keeps the cross-entropy of a saturated score finite, as torch's own does


class SimOTAAssigner:
    """One-to-many assignment by cost, with a number of positives that follows the IoUs.

    Candidates are the points near the centre of any object of the image. An object takes its k cheapest
    candidates; k is the sum of its ``top_k`` largest IoUs, rounded down, at least 1. A point taken by
    several objects goes to the one for which it is cheapest, of equal ones to the first.

    Args:
        top_k: positives of each ground truth, at most.
        iou_weight: of -log(IoU) in the cost, beside the binary cross-entropy of the class scores.
        centre_radius: half the side of the centre square, in strides of the point's level.

    Raises:
        ValueError: if top_k is less than 1, the weight negative, or the radius not positive.

    Source: Ge et al., YOLOX, 2021, §2.1. https://arxiv.org/abs/2107.08430
        Differs from the paper in: a point inside a box but far from its centre is no candidate (the
        later code release); an image without candidates has no positives.
    """

    def __init__(self, top_k: int = 10, iou_weight: float = 3.0, centre_radius: float = 1.5) -> None:
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1; got {top_k}")
        if iou_weight < 0 or centre_radius <= 0:
            raise ValueError(
                "iou_weight must not be negative and centre_radius must be positive; "
                f"got iou_weight={iou_weight}, centre_radius={centre_radius}"
            )
        self.top_k = top_k
        self.iou_weight = iou_weight
        self.centre_radius = centre_radius

    @torch.no_grad()
    def __call__(
        self, scores_BAC: Tensor, boxes_BA4: Tensor, points_A2: Tensor, strides_A: Tensor, targets: Targets
    ) -> Assignment:
        """Pair points with ground truth.

        Args:
            scores_BAC: class probabilities times objectness; the cost takes their square root.
            boxes_BA4: predicted boxes, pixels.
            points_A2: centres of the cells, pixels.
            strides_A: pixels per cell.
            targets: ground truth of the batch; crowd boxes are not used.

        Returns:
            The assignment; ``quality_BA`` is the IoU with the matched ground truth.
        """
        scores_BAC, boxes_BA4 = at_least_float32(scores_BAC), at_least_float32(boxes_BA4)
        quality_BA = boxes_BA4.new_zeros(boxes_BA4.shape[:2])
        positive_BA, gt_index_BA = quality_BA.bool(), quality_BA.long()
        image_G, labels_G, gt_boxes_G4 = targets.image_rows, targets.labels, targets.boxes.to(boxes_BA4.dtype)
        if len(image_G) == 0:
            return Assignment(positive_BA, gt_index_BA, quality_BA)
        near_GA = self._near_centre(gt_boxes_G4, points_A2, strides_A)
        point_BK, valid_BK = _candidates(near_GA, image_G, len(boxes_BA4))  # K = most candidates of any image

        image_B1 = torch.arange(len(boxes_BA4), device=image_G.device)[:, None]
        boxes_BK4 = boxes_BA4[image_B1, point_BK]
        valid_GK = valid_BK[image_G]
        iou_GK = aligned_iou(boxes_BK4[image_G], gt_boxes_G4[:, None]).masked_fill(~valid_GK, 0.0)
        class_cost_GK = _class_cost(scores_BAC[image_B1, point_BK], image_G, labels_G)
        cost_GK = class_cost_GK - self.iou_weight * (iou_GK + 1e-8).log()
        cost_GK = cost_GK + FAR * ~near_GA.gather(1, point_BK[image_G])
        cost_GK = cost_GK.masked_fill(~valid_GK, torch.inf)

        gt_P, column_P = _resolve(*self._cheapest(cost_GK, iou_GK), cost_GK, image_G)
        image_P = image_G[gt_P]
        point_P = point_BK[image_P, column_P]
        positive_BA[image_P, point_P] = True
        gt_index_BA[image_P, point_P] = gt_P
        quality_BA[image_P, point_P] = iou_GK[gt_P, column_P]
        return Assignment(positive_BA, gt_index_BA, quality_BA)

    def _near_centre(self, gt_boxes_G4: Tensor, points_A2: Tensor, strides_A: Tensor) -> Tensor:
        """(G, A) True where a point lies in the centre square of a ground truth."""
        radius_A = self.centre_radius * strides_A
        centre_x_G1, centre_y_G1 = xyxy_to_cxcywh(gt_boxes_G4)[:, :2, None].unbind(1)
        point_x_A, point_y_A = points_A2.T.contiguous()
        return ((point_x_A - centre_x_G1).abs_() < radius_A) & ((point_y_A - centre_y_G1).abs_() < radius_A)

    def _cheapest(self, cost_GK: Tensor, iou_GK: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs (ground truth, column) of each ground truth's cheapest candidates, as many as its IoUs sum up to."""
        width = min(self.top_k, cost_GK.shape[1])
        wanted_G = iou_GK.topk(width, dim=1).values.sum(1).int().clamp(min=1)
        costs_Gk, columns_Gk = cost_GK.topk(width, dim=1, largest=False)
        rank_k = torch.arange(width, device=cost_GK.device)
        taken_Gk = (rank_k < wanted_G[:, None]) & (costs_Gk < torch.inf)
        return taken_Gk.nonzero(as_tuple=True)[0], columns_Gk[taken_Gk]


def _candidates(near_GA: Tensor, image_G: Tensor, num_images: int) -> tuple[Tensor, Tensor]:
    """Points near any ground truth of each image, padded: (B, K) points, ascending, and where they are no padding."""
    pair_gt, pair_point = near_GA.nonzero(as_tuple=True)
    candidate_BA = torch.zeros(num_images, near_GA.shape[1], dtype=torch.bool, device=near_GA.device)
    candidate_BA[image_G[pair_gt], pair_point] = True
    image_Q, point_Q = candidate_BA.nonzero(as_tuple=True)
    count_B = candidate_BA.sum(1)
    column_Q = candidate_BA.cumsum(1)[image_Q, point_Q] - 1
    valid_BK = torch.arange(int(count_B.max()), device=near_GA.device) < count_B[:, None]
    point_BK = torch.zeros_like(valid_BK, dtype=torch.int64)
    point_BK[image_Q, column_Q] = point_Q
    return point_BK, valid_BK


def _class_cost(scores_BKC: Tensor, image_G: Tensor, gt_labels_G: Tensor) -> Tensor:
    """(G, K) binary cross-entropy of sqrt(score) and the one-hot class, summed over the classes.

    The sum over all classes as absent is computed once for each point; then the object's class is corrected.
    """
    probs_BKC = scores_BKC.sqrt()
    absent_BKC = probs_BKC.neg().log1p().clamp(min=LOWEST_LOG)
    absent_GK = absent_BKC[image_G, :, gt_labels_G]
    present_GK = probs_BKC[image_G, :, gt_labels_G].log().clamp(min=LOWEST_LOG)
    return absent_GK - absent_BKC.sum(-1)[image_G] - present_GK


def _resolve(gt_P: Tensor, column_P: Tensor, cost_GK: Tensor, image_G: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs with each point once; a point with several objects goes to the one with the lowest cost."""
    width = cost_GK.shape[1]
    slot_X, pair_to_slot_P, takers_X = torch.unique(
        image_G[gt_P] * width + column_P, return_inverse=True, return_counts=True
    )
    gt_X = torch.zeros_like(slot_X)
    gt_X[pair_to_slot_P] = gt_P
    contested_Y = slot_X[takers_X > 1]
    elsewhere_GY = image_G[:, None] != contested_Y // width
    gt_X[takers_X > 1] = cost_GK[:, contested_Y % width].masked_fill(elsewhere_GY, torch.inf).argmin(0)
    return gt_X, slot_X % width
