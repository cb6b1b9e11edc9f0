"""Raw predictions of a YOLO head to detections, by class-aware non-maximum suppression."""

import copy
from typing import Self

import torch
from torch import Tensor

from detkit.ops.box_coding import decode_boxes
from detkit.ops.nms import batched_nms
from detkit.ops.precision import at_least_float32
from detkit.types import DenseDetections, Detections, YOLOPredictions


class YOLODecode:
    """Keep boxes above the score threshold and suppress those that overlap better ones.

    Args:
        score_threshold: lowest score kept; 0.001 for evaluation, 0.25 or more to look at.
        iou_threshold: of the suppression, within a class.
        max_detections: most detections of an image.
        max_candidates: the best so many go into the suppression.
        multi_label: whether a point may give one detection per class, or only its best class.

    Raises:
        ValueError: if a threshold lies outside [0, 1] or a limit is less than 1.
    """

    def __init__(
        self,
        score_threshold: float = 0.001,
        iou_threshold: float = 0.7,
        max_detections: int = 300,
        max_candidates: int = 10_000,
        multi_label: bool = True,
    ) -> None:
        if not (0 <= score_threshold <= 1 and 0 <= iou_threshold <= 1):
            raise ValueError(
                f"thresholds must lie in [0, 1]; got score_threshold={score_threshold}, iou_threshold={iou_threshold}"
            )
        if max_detections < 1 or max_candidates < 1:
            raise ValueError(
                f"limits must be at least 1; got max_detections={max_detections}, max_candidates={max_candidates}"
            )
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.max_detections = max_detections
        self.max_candidates = max_candidates
        self.multi_label = multi_label

    def with_threshold(self, score_threshold: float) -> Self:
        """The same decoder with another lowest score. A higher one gives the best of the same detections.

        But where more than ``max_candidates`` reach one threshold, equal scores may rank otherwise.
        """
        other = copy.copy(self)
        other.score_threshold = score_threshold
        return other

    @torch.no_grad()
    def __call__(self, predictions: YOLOPredictions) -> list[Detections]:
        """Detections of each image, in pixels of the network input."""
        return self.select(self.dense(predictions))

    def dense(self, predictions: YOLOPredictions) -> DenseDetections:
        """Boxes and scores of all anchor points: arithmetic alone, which any runtime can do."""
        boxes_BA4 = decode_boxes(predictions.boxes, predictions.points, predictions.strides, predictions.box_coding)
        scores_BAC = at_least_float32(predictions.logits).sigmoid()
        if predictions.objectness is not None:
            scores_BAC = scores_BAC * at_least_float32(predictions.objectness).sigmoid()[..., None]
        return DenseDetections(boxes_BA4, scores_BAC)

    def select(self, dense: DenseDetections) -> list[Detections]:
        """The boxes of each image that reach the threshold and are not suppressed."""
        return [self._select_of_image(boxes, scores) for boxes, scores in zip(*dense, strict=True)]

    def _select_of_image(self, boxes_A4: Tensor, scores_AC: Tensor) -> Detections:
        if self.multi_label:
            point_K, labels_K = (scores_AC >= self.score_threshold).nonzero(as_tuple=True)
            scores_K = scores_AC[point_K, labels_K]
        else:
            scores_A, labels_A = scores_AC.max(dim=1)
            point_K = (scores_A >= self.score_threshold).nonzero().squeeze(1)
            scores_K, labels_K = scores_A[point_K], labels_A[point_K]
        if len(scores_K) > self.max_candidates:
            scores_K, best = scores_K.topk(self.max_candidates)
            point_K, labels_K = point_K[best], labels_K[best]
        boxes_K4 = boxes_A4[point_K]
        kept = batched_nms(boxes_K4, scores_K, labels_K, self.iou_threshold)[: self.max_detections]
        return Detections(boxes_K4[kept], scores_K[kept], labels_K[kept])
