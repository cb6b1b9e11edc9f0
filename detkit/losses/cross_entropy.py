"""Cross-entropy of one class among many, and the loss of the classifiers made of it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from detkit.losses.reduction import mean_over_ranks, or_one, reduce
from detkit.ops.precision import at_least_float32
from detkit.types import ImageLabels


def cross_entropy(
    logits_BC: Tensor, labels_B: Tensor, label_smoothing: float = 0.0, class_weights_C: Tensor | None = None
) -> Tensor:
    """-log softmax of the true class, in float32 or better.

    Args:
        logits_BC: raw scores.
        labels_B: class index of each image.
        label_smoothing: this fraction of the target is spread evenly over all classes.
        class_weights_C: weight of each class.

    Returns:
        (B,) not reduced.

    Raises:
        ValueError: if there is not one label for each row of logits.

    Source: Szegedy et al., Rethinking the Inception Architecture, 2016, §7 (smoothing).
        https://arxiv.org/abs/1512.00567
    """
    if logits_BC.shape[:1] != labels_B.shape:
        raise ValueError(
            f"each row of logits needs one label; got logits {tuple(logits_BC.shape)}, labels {tuple(labels_B.shape)}"
        )
    logits_BC = at_least_float32(logits_BC)
    class_weights_C = None if class_weights_C is None else class_weights_C.to(logits_BC)
    return F.cross_entropy(logits_BC, labels_B, class_weights_C, reduction="none", label_smoothing=label_smoothing)


class ClassificationLoss:
    """Cross-entropy over a batch of images with one class each.

    Normaliser: the number of images of the batch, or the sum of their class weights, averaged over
    ranks, see Note [one normaliser for all ranks].

    Args:
        label_smoothing: this fraction of the target is spread evenly over all classes.
        class_weights: one for each class, in the order of class indices, e.g. larger for rare ones;
            None: all the same.
        cls_weight: of the term ``cls``.

    Raises:
        ValueError: if label_smoothing lies outside [0, 1), or a class weight is negative.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        cls_weight: float = 1.0,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1); got {label_smoothing}")
        if class_weights is not None and not all(0 <= weight < float("inf") for weight in class_weights):
            raise ValueError(f"class_weights must be finite and not negative; got {list(class_weights)}")
        self.label_smoothing = label_smoothing
        self.class_weights_C = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float64)
        self.cls_weight = cls_weight

    def __call__(self, logits_BC: Tensor, targets: ImageLabels) -> dict[str, Tensor]:
        """The weighted term of the batch, which is what training minimises.

        Raises:
            ValueError: if there is not one class weight for each class.
        """
        weights_B = self._weights_of(targets.labels, logits_BC)
        values_B = cross_entropy(logits_BC, targets.labels, self.label_smoothing, self.class_weights_C)
        normaliser = or_one(mean_over_ranks(weights_B.sum()))
        return {"cls": reduce(values_B, normaliser, weight=self.cls_weight)}

    def _weights_of(self, labels_B: Tensor, logits_BC: Tensor) -> Tensor:
        if self.class_weights_C is None:
            return torch.ones_like(labels_B, dtype=torch.float32)
        if len(self.class_weights_C) != logits_BC.shape[1]:
            raise ValueError(
                f"class_weights must have one for each of the {logits_BC.shape[1]} classes; "
                f"got {len(self.class_weights_C)}"
            )
        dtype = logits_BC.dtype if logits_BC.element_size() >= 4 else torch.float32
        return self.class_weights_C.to(labels_B.device, dtype)[labels_B]
