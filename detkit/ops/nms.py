"""Class-aware non-maximum suppression, by torchvision."""

import functools
import logging

import torch
import torchvision
from torch import Tensor

LOG = logging.getLogger(__name__)


def batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Rows to keep, best first: a box is dropped if a better one of its class overlaps it more than the threshold.

    Whether a box is kept depends only on the better boxes of its class, so leaving out the worst boxes changes
    nothing for the others. This needs two things. Equal scores rank by row. All is computed in float64, because
    torchvision shifts the boxes of each class by a distance that depends on all boxes, and float32 rounds it.

    For a device without float64, such as Apple's MPS, it runs on the CPU.

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
    """Whether the device has float64; without it, one warning says where the suppression runs."""
    if device.type != "mps":
        return True
    LOG.warning("%s has no float64: overlapping boxes are suppressed on the CPU", device)
    return False
