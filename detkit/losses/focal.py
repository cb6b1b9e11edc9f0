"""Class losses by logits against soft targets: plain, focal and varifocal cross-entropy."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from detkit.ops.precision import at_least_float32

ClassLossKind = Literal["bce", "focal", "varifocal"]


def class_loss(logits: Tensor, targets: Tensor, kind: ClassLossKind = "bce") -> Tensor:
    """Element-wise loss of logits against targets in [0, 1], in float32 or better.

    Args:
        logits: raw scores, any shape.
        targets: the same shape; 0 for negatives, the quality (or 1) for positives.
        kind: "bce" binary cross-entropy; "focal" quality focal loss with exponent 2;
            "varifocal" with alpha 0.75 and gamma 2: positives are weighed by their target.

    Returns:
        The logits' shape, not reduced.

    Raises:
        ValueError: for another kind.

    Source: Li et al., Generalized Focal Loss, 2020, eq. 5 (focal for soft targets). https://arxiv.org/abs/2006.04388
        Zhang et al., VarifocalNet, 2021, eq. 2. https://arxiv.org/abs/2008.13367
    """
    logits = at_least_float32(logits)
    targets = targets.to(logits.dtype)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if kind == "bce":
        return cross_entropy
    scores = logits.sigmoid()
    if kind == "focal":
        return cross_entropy * (scores - targets).square()
    if kind == "varifocal":
        weights = scores.detach().square() * 0.75
        return cross_entropy * targets.where(targets > 0, weights)
    raise ValueError(f"kind must be bce, focal or varifocal; got {kind!r}")
