"""Distribution focal loss: learn a box side as a distribution over distance bins."""

import torch.nn.functional as F
from torch import Tensor

from detkit.ops.precision import at_least_float32


def distribution_focal_loss(logits_PSR: Tensor, distances_PS: Tensor) -> Tensor:
    """Cross-entropy to the two bins around each true distance, weighted by nearness.

    Args:
        logits_PSR: raw scores of the bins 0, 1, .., R-1.
        distances_PS: from the anchor point to the box side, in strides; a distance is
            clamped to [0, R-1], which is all that R bins can express.

    Returns:
        (P,) mean over the four sides; the caller weighs and sums it.

    Raises:
        ValueError: if the leading dimensions differ.

    Source: Li et al., Generalized Focal Loss, 2020, eq. 6. https://arxiv.org/abs/2006.04388
    """
    if logits_PSR.shape[:-1] != distances_PS.shape:
        raise ValueError(
            f"logits {tuple(logits_PSR.shape)} and distances {tuple(distances_PS.shape)} "
            "must agree in all but the last dimension of the logits"
        )
    num_bins = logits_PSR.shape[-1]
    clamped_PS = distances_PS.clamp(0, num_bins - 1)
    left_PS = clamped_PS.long().clamp(max=num_bins - 2)
    weight_right_PS = clamped_PS - left_PS
    log_probs_PSR = F.log_softmax(at_least_float32(logits_PSR), dim=-1)
    loss_left_PS = -log_probs_PSR.gather(-1, left_PS[..., None]).squeeze(-1)
    loss_right_PS = -log_probs_PSR.gather(-1, left_PS[..., None] + 1).squeeze(-1)
    return loss_left_PS.lerp(loss_right_PS, weight_right_PS.to(log_probs_PSR.dtype)).mean(dim=-1)
