"""Class-aware non-maximum suppression, by torchvision."""

import functools
import logging

import torch
import torchvision
from torch import Tensor

LOG = logging.getLogger(__name__)


def batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Rows to keep, best first: a box goes if a better one of its class overlaps it more than the threshold.

    What becomes of a box depends on the better boxes of its class alone: without the worst boxes the result is the
    same, but for these. For that equal scores rank by row, and all is float64: torchvision moves the boxes of each
    class away from the others by a distance that depends on all boxes, which float32 rounds.

    A device without float64, such as Apple's MPS, leaves it to the CPU.

    Args:
        boxes: (K, 4) xyxy.
        scores: (K,).
        labels: (K,) boxes of different labels never suppress each other.
        iou_threshold: in [0, 1].

    Returns:
        (kept,) int64 rows.
    """
    device = boxes.device
    if not _has_float64(device):
        boxes, scores, labels = boxes.cpu(), scores.cpu(), labels.cpu()
    rows = scores.argsort(descending=True, stable=True)
    ranks = torch.arange(len(rows), 0, -1, dtype=torch.float64, device=rows.device)
    kept = rows[torchvision.ops.batched_nms(boxes[rows].double(), ranks, labels[rows], iou_threshold)]
    return kept.to(device)


@functools.cache
def _has_float64(device: torch.device) -> bool:
    """Whether float64 exists there; says once what comes of it if not."""
    if device.type != "mps":
        return True
    LOG.warning("%s has no float64: overlapping boxes are suppressed on the CPU", device)
    return False
