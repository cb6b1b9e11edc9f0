"""Ground truth of a batch in one tensor each."""

import torch
from torch import Tensor

from detkit.types import Target


def pad_targets(targets: list[Target]) -> tuple[Tensor, Tensor, Tensor]:
    """Labels (B, N), boxes (B, N, 4) and a mask (B, N) of what is no padding; N is the most of any image."""
    most = max(len(target.labels) for target in targets)
    boxes = targets[0].boxes
    labels = torch.zeros(len(targets), most, dtype=torch.int64, device=boxes.device)
    padded = boxes.new_zeros(len(targets), most, 4)
    mask = torch.zeros(len(targets), most, dtype=torch.bool, device=boxes.device)
    for image, target in enumerate(targets):
        count = len(target.labels)
        labels[image, :count] = target.labels
        padded[image, :count] = target.boxes
        mask[image, :count].fill_(True)
    return labels, padded, mask
