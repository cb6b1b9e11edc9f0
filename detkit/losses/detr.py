"""The loss of the RT-DETR recipes: the queries of every layer compared with their objects."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from detkit.assign.hungarian import Pairs
from detkit.losses.focal import ClassLossKind, class_loss
from detkit.losses.l1 import l1_loss
from detkit.losses.reduction import average_over_ranks, reduce
from detkit.ops.boxes import cxcywh_norm_to_xyxy, xyxy_to_cxcywh_norm
from detkit.ops.iou import aligned_iou
from detkit.ops.precision import at_least_float32
from detkit.types import DETRPredictions, QueryOutput, Targets

NO_NEGATIVE = torch.finfo(torch.float32).tiny  # class_loss takes a target of 0 for a negative


class PairAssigner(Protocol):
    """Pairs the queries of every output with the ground truth, as ``detkit.assign.HungarianAssigner`` does."""

    def __call__(self, outputs: Sequence[QueryOutput], targets: Targets, image_hw: tuple[int, int]) -> list[Pairs]: ...


class DETRLoss:
    """Class, L1 and GIoU terms of the decoder's layers, of the encoder and of the denoising queries.

    Every output is assigned separately; the objects of denoising queries are known. The class target of a paired query
    is its IoU at the object's class and 0 elsewhere. A query without an object is a negative, also in a crowd region,
    because crowd regions are ignored (the authors ignore them too). Normaliser: the number of objects of the batch,
    averaged over ranks, at least 1; for denoising queries times the groups.

    Args:
        assigner: pairs queries with ground truth.
        cls_weight: of the terms ``cls``.
        l1_weight: of the terms ``l1``, on centre and size as fractions of the image.
        giou_weight: of the terms ``giou``, 1 - GIoU.
        cls_loss: kind of the class loss.

    Raises:
        ValueError: if a weight is negative.

    Source: Zhao et al., RT-DETR, 2023, §4.3 and code release. https://arxiv.org/abs/2304.08069
        Zhang et al., VarifocalNet, 2021, eq. 2. https://arxiv.org/abs/2008.13367
        Differs from the latter in: a paired query without overlap has weight 0 instead of being a negative (as in
        the code release).
    """

    def __init__(
        self,
        assigner: PairAssigner,
        cls_weight: float = 1.0,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
        cls_loss: ClassLossKind = "varifocal",
    ) -> None:
        if min(cls_weight, l1_weight, giou_weight) < 0:
            raise ValueError(
                "weights must not be negative; "
                f"got cls_weight={cls_weight}, l1_weight={l1_weight}, giou_weight={giou_weight}"
            )
        self.assigner = assigner
        self.cls_weight = cls_weight
        self.l1_weight = l1_weight
        self.giou_weight = giou_weight
        self.cls_loss: ClassLossKind = cls_loss

    def __call__(self, predictions: DETRPredictions, targets: Targets) -> dict[str, Tensor]:
        """Named, weighted terms of the batch; their sum is what training minimises.

        Returns:
            ``cls``, ``l1`` and ``giou`` of the last layer; with ``_aux_i`` those of an earlier layer i, with
            ``_enc`` of the encoder, with ``_dn_i`` of layer i's denoising queries. The latter are 0 where a
            batch has none, because means over batches and ranks need the same names everywhere.
        """
        image_hw, (*earlier, last) = predictions.image_hw, predictions.layers
        outputs = {"": last, **{f"_aux_{i}": layer for i, layer in enumerate(earlier)}, "_enc": predictions.encoder}
        assigned = self.assigner(list(outputs.values()), targets, image_hw)
        objects = average_over_ranks(torch.full((), float(len(targets.labels)), device=last.logits.device))
        terms: dict[str, Tensor] = {}
        for (suffix, output), pairs in zip(outputs.items(), assigned, strict=True):
            terms |= self._terms(suffix, output, pairs, targets, image_hw, objects)
        denoising = predictions.denoising
        for number in range(len(predictions.layers)):
            suffix = f"_dn_{number}"
            if denoising is None:
                terms |= {name + suffix: torch.zeros_like(terms[name]) for name in ("cls", "l1", "giou")}
                continue
            pairs = Pairs(denoising.image_rows, denoising.query_rows, denoising.gt_rows)
            terms |= self._terms(suffix, denoising.layers[number], pairs, targets, image_hw, objects * denoising.groups)
        return terms

    def _terms(
        self,
        suffix: str,
        output: QueryOutput,
        pairs: Pairs,
        targets: Targets,
        image_hw: tuple[int, int],
        normaliser: Tensor,
    ) -> dict[str, Tensor]:
        """The three terms of one output."""
        labels_P = targets.labels[pairs.gt_rows]
        coordinates_BQ4 = at_least_float32(output.boxes_cxcywh_norm)
        gt_boxes_P4 = targets.boxes[pairs.gt_rows].to(coordinates_BQ4.dtype)
        coordinates_P4 = coordinates_BQ4[pairs.image_rows, pairs.query_rows]
        boxes_P4 = cxcywh_norm_to_xyxy(coordinates_P4, image_hw)

        iou_P = aligned_iou(boxes_P4.detach(), gt_boxes_P4)
        class_targets_BQC = torch.zeros_like(output.logits, dtype=iou_P.dtype)
        class_targets_BQC[pairs.image_rows, pairs.query_rows, labels_P] = iou_P.clamp(min=NO_NEGATIVE)
        cls_BQC = class_loss(output.logits, class_targets_BQC, self.cls_loss)
        wanted_P4 = xyxy_to_cxcywh_norm(gt_boxes_P4, image_hw)
        l1 = reduce(l1_loss(coordinates_P4, wanted_P4), normaliser, weight=self.l1_weight)
        giou_P = 1 - aligned_iou(boxes_P4, gt_boxes_P4, "giou")
        return {
            f"cls{suffix}": reduce(cls_BQC, normaliser, weight=self.cls_weight),
            f"l1{suffix}": l1 + 0 * coordinates_BQ4.sum(),  # a NaN box without an object makes the loss NaN too
            f"giou{suffix}": reduce(giou_P, normaliser, weight=self.giou_weight),
        }
