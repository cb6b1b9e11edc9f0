"""The result of an assigner."""

from typing import NamedTuple

from torch import Tensor


class Assignment(NamedTuple):
    """For every anchor point of a batch: whether it is positive, its ground truth and its quality.

    ``gt_index_BA`` is valid only where ``positive_BA``; ``quality_BA`` is the soft class
    target of a positive point, in [0, 1], and 0 elsewhere.
    """

    positive_BA: Tensor  # (B, A) bool
    gt_index_BA: Tensor  # (B, A) int64 row among the ground truths of the batch
    quality_BA: Tensor  # (B, A) float32, or float64 where the predictions are
