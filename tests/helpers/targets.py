"""Ground truth written as lists."""

from collections.abc import Sequence

import torch

from detkit.ops.targets import pack_targets
from detkit.types import Target, Targets

Boxes = Sequence[Sequence[float]]


def target(
    boxes: Boxes,
    labels: Sequence[int],
    crowds: Boxes = (),
    *,
    image_id: int = 0,
    image_hw: tuple[int, int] = (64, 64),
    dtype: torch.dtype = torch.float32,
) -> Target:
    """Of boxes in pixels of the network input, which is the original image."""
    return Target(
        torch.tensor(boxes, dtype=dtype).view(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(crowds, dtype=dtype).view(-1, 4),
        image_id,
        image_hw,
    )


def packed(labels: Sequence[Sequence[int]], boxes: Sequence[Boxes]) -> Targets:
    """The ground truth of a batch, of the labels and boxes of each image."""
    return pack_targets([target(*of_image) for of_image in zip(boxes, labels, strict=True)])
