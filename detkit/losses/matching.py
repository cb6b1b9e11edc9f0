"""The first step of both YOLO losses: decode the boxes, assign ground truth, and gather the positive points."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from detkit.assign.assignment import Assignment
from detkit.ops.box_coding import decode_boxes
from detkit.ops.precision import at_least_float32
from detkit.types import Targets, YOLOPredictions


class Assigner(Protocol):
    """Pairs anchor points with ground truth: ``TaskAlignedAssigner`` and ``SimOTAAssigner`` do."""

    def __call__(
        self, scores_BAC: Tensor, boxes_BA4: Tensor, points_A2: Tensor, strides_A: Tensor, targets: Targets
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


def match(predictions: YOLOPredictions, targets: Targets, assigner: Assigner) -> Matches:
    """Assign ground truth to the anchor points of a batch."""
    boxes_BA4 = decode_boxes(predictions.boxes, predictions.points, predictions.strides, predictions.box_coding)
    scores_BAC = at_least_float32(predictions.logits.detach()).sigmoid()
    if predictions.objectness is not None:
        scores_BAC = scores_BAC * at_least_float32(predictions.objectness.detach()).sigmoid()[..., None]
    assignment = assigner(scores_BAC, boxes_BA4.detach(), predictions.points, predictions.strides, targets)
    image_P, point_P = assignment.positive_BA.nonzero(as_tuple=True)
    row_P = assignment.gt_index_BA[image_P, point_P]
    return Matches(
        image_P,
        point_P,
        targets.labels[row_P],
        targets.boxes[row_P].to(boxes_BA4.dtype),
        boxes_BA4[image_P, point_P],
        assignment.quality_BA[image_P, point_P],
        assignment.positive_BA | ~points_in_crowds(predictions.points, targets),
    )


def points_in_crowds(points_A2: Tensor, targets: Targets) -> Tensor:
    """(B, A) True where a point lies in a crowd region of its image: neither object nor background."""
    boxes_M14 = targets.crowd_boxes[:, None]
    inside_MA = ((points_A2 >= boxes_M14[..., :2]) & (points_A2 <= boxes_M14[..., 2:])).all(-1)
    regions_BA = torch.zeros(targets.num_images, len(points_A2), dtype=torch.int32, device=points_A2.device)
    return regions_BA.index_add_(0, targets.crowd_rows, inside_MA.int()).bool()
