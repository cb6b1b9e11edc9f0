"""Class-aware non-maximum suppression, by torchvision."""

import torchvision
from torch import Tensor


def batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Rows to keep, best first: a box goes if a better one of its class overlaps it more than the threshold.

    Args:
        boxes: (K, 4) xyxy.
        scores: (K,).
        labels: (K,) boxes of different labels never suppress each other.
        iou_threshold: in [0, 1].

    Returns:
        (kept,) int64 rows.
    """
    return torchvision.ops.batched_nms(boxes.float(), scores.float(), labels, iou_threshold)
