"""Raw predictions of a DETR head to detections: the best scores, without suppression."""

import copy
from typing import Self

import torch
from torch import Tensor

from detkit.ops.boxes import cxcywh_norm_to_xyxy
from detkit.ops.precision import at_least_float32
from detkit.types import DenseDetections, Detections, DETRPredictions


class DETRDecode:
    """Keep the best scores of the last layer, over all queries and classes.

    A query may give several detections, one for each class. Nothing is suppressed: in training queries learn not to
    find an object twice.

    Args:
        max_detections: most detections of an image.
        score_threshold: lowest score kept; 0 for evaluation, 0.25 or more to look at.

    Raises:
        ValueError: if max_detections is less than 1 or the threshold lies outside [0, 1].

    Source: Zhao et al., RT-DETR, 2023, code release. https://arxiv.org/abs/2304.08069
    """

    def __init__(self, max_detections: int = 300, score_threshold: float = 0.0) -> None:
        if max_detections < 1:
            raise ValueError(f"max_detections must be at least 1; got {max_detections}")
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold must lie in [0, 1]; got {score_threshold}")
        self.max_detections = max_detections
        self.score_threshold = score_threshold

    def with_threshold(self, score_threshold: float) -> Self:
        """The same decoder with another lowest score. A higher one gives the best of the same detections."""
        other = copy.copy(self)
        other.score_threshold = score_threshold
        return other

    @torch.no_grad()
    def __call__(self, predictions: DETRPredictions) -> list[Detections]:
        """Detections of each image, best first, in pixels of the network input."""
        return self.select(self.dense(predictions))

    def dense(self, predictions: DETRPredictions) -> DenseDetections:
        """Boxes and scores of all queries: arithmetic alone, which any runtime can do."""
        answer = predictions.layers[-1]
        boxes_BQ4 = cxcywh_norm_to_xyxy(at_least_float32(answer.boxes_cxcywh_norm), predictions.image_hw)
        return DenseDetections(boxes_BQ4, at_least_float32(answer.logits).sigmoid())

    def select(self, dense: DenseDetections) -> list[Detections]:
        """The best of each image."""
        return [self._above_threshold(*of_image) for of_image in zip(*self.best(dense), strict=True)]

    def best(self, dense: DenseDetections) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (B, K, 4), scores and labels (B, K) of the best, without a lowest score."""
        num_classes = dense.scores.shape[-1]
        scores_BX = dense.scores.flatten(1)  # X = query * C + class
        scores_BK, best_BK = scores_BX.topk(min(self.max_detections, scores_BX.shape[1]), dim=1)
        boxes_BK4 = dense.boxes.gather(1, (best_BK // num_classes)[..., None].expand(-1, -1, 4))
        return boxes_BK4, scores_BK, best_BK % num_classes

    def _above_threshold(self, boxes_K4: Tensor, scores_K: Tensor, labels_K: Tensor) -> Detections:
        kept = scores_K >= self.score_threshold
        return Detections(boxes_K4[kept], scores_K[kept], labels_K[kept])
