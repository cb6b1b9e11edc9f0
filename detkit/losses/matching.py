"""What both YOLO losses do first: decode, assign, and gather the positive points."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from detkit.assign.assignment import Assignment
from detkit.ops.box_coding import decode_boxes
from detkit.ops.precision import at_least_float32
from detkit.ops.targets import pad_targets
from detkit.types import Target, YOLOPredictions


class Assigner(Protocol):
    """Pairs anchor points with ground truth, as ``detkit.assign`` has several."""

    def __call__(
        self,
        scores_BAC: Tensor,
        boxes_BA4: Tensor,
        points_A2: Tensor,
        strides_A: Tensor,
        gt_labels_BN: Tensor,
        gt_boxes_BN4: Tensor,
        gt_mask_BN: Tensor,
    ) -> Assignment: ...


class Matches(NamedTuple):
    """Positive points of a batch with their ground truth, and which points count as negatives."""

    image_P: Tensor  # row of the batch
    point_P: Tensor  # row among the anchor points
    labels_P: Tensor
    gt_boxes_P4: Tensor  # pixels
    pred_boxes_P4: Tensor  # pixels, with gradient
    quality_P: Tensor
    counted_BA: Tensor  # bool; False inside crowd regions, unless positive


def match(predictions: YOLOPredictions, targets: list[Target], assigner: Assigner) -> Matches:
    """Assign ground truth to the anchor points of a batch."""
    boxes_BA4 = decode_boxes(predictions.boxes, predictions.points, predictions.strides, predictions.box_coding)
    scores_BAC = at_least_float32(predictions.logits.detach()).sigmoid()
    if predictions.objectness is not None:
        scores_BAC = scores_BAC * at_least_float32(predictions.objectness.detach()).sigmoid()[..., None]
    labels_BN, gt_boxes_BN4, mask_BN = pad_targets(targets)
    gt_boxes_BN4 = gt_boxes_BN4.to(boxes_BA4.dtype)
    assignment = assigner(
        scores_BAC, boxes_BA4.detach(), predictions.points, predictions.strides, labels_BN, gt_boxes_BN4, mask_BN
    )
    image_P, point_P = assignment.positive_BA.nonzero(as_tuple=True)
    row_P = assignment.gt_index_BA[image_P, point_P]
    return Matches(
        image_P,
        point_P,
        labels_BN[image_P, row_P],
        gt_boxes_BN4[image_P, row_P],
        boxes_BA4[image_P, point_P],
        assignment.quality_BA[image_P, point_P],
        assignment.positive_BA | ~points_in_crowds(predictions.points, targets),
    )


def points_in_crowds(points_A2: Tensor, targets: list[Target]) -> Tensor:
    """(B, A) True where a point lies in a crowd region of its image: neither object nor background."""
    inside_BA = torch.zeros(len(targets), len(points_A2), dtype=torch.bool, device=points_A2.device)
    for image, target in enumerate(targets):
        if len(target.ignored_boxes):
            boxes_M14 = target.ignored_boxes[:, None]
            above = (points_A2 >= boxes_M14[..., :2]) & (points_A2 <= boxes_M14[..., 2:])
            inside_BA[image] = above.all(-1).any(0)
    return inside_BA
