"""The loss of the YOLOX recipes: objectness for every point, class and box for the positive ones."""

import torch
from torch import Tensor

from detkit.losses.focal import class_loss
from detkit.losses.l1 import l1_loss
from detkit.losses.matching import Assigner, match
from detkit.losses.reduction import average_over_ranks, reduce
from detkit.ops.box_coding import encode_offsets
from detkit.ops.iou import aligned_iou
from detkit.types import Targets, YOLOPredictions


class YOLOXLoss:
    """Box, objectness, class and (late in training) L1 terms over a batch.

    Normaliser: the number of positive points of the batch, averaged over ranks.

    Args:
        assigner: pairs points with ground truth.
        box_weight: of the term ``box``, 1 - IoU^2.
        obj_weight: of the term ``obj``, over all points.
        cls_weight: of the term ``cls``, over positive points with their IoU as the target.
        l1_weight: of the term ``l1`` on the raw box parameters; 0 leaves it out.

    Source: Ge et al., YOLOX, 2021, §2.1 and code release. https://arxiv.org/abs/2107.08430
    """

    def __init__(
        self,
        assigner: Assigner,
        box_weight: float = 5.0,
        obj_weight: float = 1.0,
        cls_weight: float = 1.0,
        l1_weight: float = 0.0,
    ) -> None:
        self.assigner = assigner
        self.box_weight = box_weight
        self.obj_weight = obj_weight
        self.cls_weight = cls_weight
        self.l1_weight = l1_weight

    def __call__(self, predictions: YOLOPredictions, targets: Targets) -> dict[str, Tensor]:
        """Named, weighted terms of the batch; their sum is what training minimises.

        Raises:
            ValueError: if the head has no objectness or codes its boxes otherwise than as offsets.
        """
        if predictions.objectness is None or predictions.box_coding != "offsets":
            raise ValueError(
                "YOLOXLoss needs a head with objectness=true and box_coding=offsets; "
                f"got box_coding={predictions.box_coding}, objectness={predictions.objectness is not None}"
            )
        matches = match(predictions, targets, self.assigner)
        image_P, point_P = matches.image_P, matches.point_P
        normaliser = average_over_ranks(matches.quality_P.new_tensor(float(len(image_P))))
        class_targets_PC = torch.zeros_like(predictions.logits[image_P, point_P], dtype=matches.quality_P.dtype)
        class_targets_PC.scatter_(1, matches.labels_P[:, None], matches.quality_P[:, None])
        cls_PC = class_loss(predictions.logits[image_P, point_P], class_targets_PC)
        present_BA = torch.zeros_like(predictions.objectness, dtype=torch.float32)
        present_BA[image_P, point_P] = 1.0
        obj_BA = class_loss(predictions.objectness, present_BA)
        box_P = 1 - aligned_iou(matches.pred_boxes_P4, matches.gt_boxes_P4).square()
        terms = {
            "box": reduce(box_P, normaliser, weight=self.box_weight),
            "obj": reduce(obj_BA, normaliser, weight=self.obj_weight, element_weights=matches.counted_BA),
            "cls": reduce(cls_PC, normaliser, weight=self.cls_weight),
        }
        if self.l1_weight:
            wanted_P4 = encode_offsets(matches.gt_boxes_P4, predictions.points[point_P], predictions.strides[point_P])
            parameters_P4 = predictions.boxes[image_P, point_P]
            terms["l1"] = reduce(l1_loss(parameters_P4, wanted_P4), normaliser, weight=self.l1_weight)
        return terms
