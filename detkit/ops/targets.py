"""Ground truth of a batch: packed from one value per image, and padded to a table with a row per image."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from detkit.types import ImageLabel, ImageLabels, Target, Targets


def pack_targets(targets: Sequence[Target]) -> Targets:
    """The ground truth of at least one image as that of a batch."""
    device = targets[0].boxes.device
    box_counts = np.array([len(target.labels) for target in targets], dtype=np.int64)
    crowd_counts = np.array([len(target.crowd_boxes) for target in targets], dtype=np.int64)
    rows = np.arange(len(targets))
    return Targets(
        boxes=torch.cat([target.boxes for target in targets]),
        labels=torch.cat([target.labels for target in targets]),
        image_rows=torch.from_numpy(rows.repeat(box_counts)).to(device),
        crowd_boxes=torch.cat([target.crowd_boxes for target in targets]),
        crowd_rows=torch.from_numpy(rows.repeat(crowd_counts)).to(device),
        box_counts=box_counts,
        crowd_counts=crowd_counts,
        image_ids=np.array([target.image_id for target in targets], dtype=np.int64),
        original_hw=np.array([target.original_hw for target in targets], dtype=np.int64),
        scale_xy=np.array([target.scale_xy for target in targets], dtype=np.float64),
        pad_xy=np.array([target.pad_xy for target in targets], dtype=np.float64),
    )


def pack_labels(labels: Sequence[ImageLabel]) -> ImageLabels:
    """The classes of at least one image as those of a batch."""
    image_ids = np.array([label.image_id for label in labels], dtype=np.int64)
    return ImageLabels(torch.stack([label.label for label in labels]), image_ids)


def pad_targets(targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
    """Labels (B, N), boxes (B, N, 4) and a mask (B, N) of what is no padding; N is the most of any image.

    This does not wait for a device, because all shapes are known on the host.
    """
    images, most, device = targets.num_images, int(targets.box_counts.max()), targets.boxes.device
    first_rows = torch.searchsorted(targets.image_rows, torch.arange(images, device=device))  # (B,) among the G boxes
    columns = torch.arange(len(targets.boxes), device=device) - first_rows[targets.image_rows]
    slots = targets.image_rows * most + columns
    labels = targets.labels.new_zeros(images * most).index_copy(0, slots, targets.labels)
    boxes = targets.boxes.new_zeros(images * most, 4).index_copy(0, slots, targets.boxes)
    mask = torch.zeros_like(labels, dtype=torch.bool).index_fill(0, slots, True)
    return labels.view(images, most), boxes.view(images, most, 4), mask.view(images, most)
