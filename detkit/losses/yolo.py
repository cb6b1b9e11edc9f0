"""The loss of the YOLO recipes: class scores that rank boxes by quality, and exact boxes."""

import torch
from torch import Tensor

from detkit.losses.distribution_focal import distribution_focal_loss
from detkit.losses.focal import ClassLossKind, class_loss
from detkit.losses.matching import Assigner, match
from detkit.losses.reduction import average_over_ranks, reduce
from detkit.ops.distances import boxes_to_distances
from detkit.ops.iou import IouKind, aligned_iou
from detkit.types import Targets, YOLOPredictions


class YOLOLoss:
    """Class, box and distribution terms over a batch, for heads without objectness.

    The target of the class score is the assignment's quality; box terms are weighed by it.
    Normaliser: the sum of qualities over the batch, averaged over ranks.

    Args:
        assigner: pairs points with ground truth.
        cls_weight: of the term ``cls``.
        box_weight: of the term ``box``, 1 - IoU.
        dfl_weight: of the term ``dfl``; left out for a head with one bin.
        cls_loss: kind of the class loss.
        iou: kind of overlap in ``box``.

    Source: Feng et al., TOOD, 2021, eqs. 9-11. https://arxiv.org/abs/2108.07755
        Li et al., Generalized Focal Loss, 2020. https://arxiv.org/abs/2006.04388
    """

    def __init__(
        self,
        assigner: Assigner,
        cls_weight: float = 0.5,
        box_weight: float = 7.5,
        dfl_weight: float = 1.5,
        cls_loss: ClassLossKind = "bce",
        iou: IouKind = "ciou",
    ) -> None:
        self.assigner = assigner
        self.cls_weight = cls_weight
        self.box_weight = box_weight
        self.dfl_weight = dfl_weight
        self.cls_loss: ClassLossKind = cls_loss
        self.iou: IouKind = iou

    def __call__(self, predictions: YOLOPredictions, targets: Targets) -> dict[str, Tensor]:
        """Named, weighted terms of the batch; their sum is what training minimises."""
        matches = match(predictions, targets, self.assigner)
        normaliser = average_over_ranks(matches.quality_P.sum())
        class_targets_BAC = torch.zeros_like(predictions.logits, dtype=matches.quality_P.dtype)
        class_targets_BAC[matches.image_P, matches.point_P, matches.labels_P] = matches.quality_P
        cls_BAC = class_loss(predictions.logits, class_targets_BAC, self.cls_loss)
        box_P = 1 - aligned_iou(matches.pred_boxes_P4, matches.gt_boxes_P4, self.iou)
        terms = {
            "cls": reduce(cls_BAC, normaliser, weight=self.cls_weight, element_weights=matches.counted_BA[..., None]),
            "box": reduce(box_P, normaliser, weight=self.box_weight, element_weights=matches.quality_P),
        }
        logits_PD = predictions.boxes[matches.image_P, matches.point_P]
        if predictions.box_coding == "distances" and logits_PD.shape[-1] > 4:
            distances_P4 = boxes_to_distances(
                matches.gt_boxes_P4, predictions.points[matches.point_P], predictions.strides[matches.point_P]
            )
            dfl_P = distribution_focal_loss(logits_PD.unflatten(-1, (4, -1)), distances_P4)
            terms["dfl"] = reduce(dfl_P, normaliser, weight=self.dfl_weight, element_weights=matches.quality_P)
        return terms
