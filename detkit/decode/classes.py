"""Logits of a classifier to its likeliest classes."""

from torch import Tensor

from detkit.ops.precision import at_least_float32
from detkit.types import RankedClasses


class ClassDecode:
    """Rank the classes of each image by softmax probability; equal ones by class index.

    Args:
        top_k: so many classes of an image are kept, or all where there are fewer.

    Raises:
        ValueError: if top_k is less than 1.
    """

    def __init__(self, top_k: int = 5) -> None:
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1; got {top_k}")
        self.top_k = top_k

    def __call__(self, logits_BC: Tensor) -> list[RankedClasses]:
        """(B, C) logits to the best classes of each image."""
        scores_BC = at_least_float32(logits_BC).softmax(dim=1)
        scores_BK, labels_BK = (x[:, : self.top_k] for x in scores_BC.sort(dim=1, descending=True, stable=True))
        return [RankedClasses(scores, labels) for scores, labels in zip(scores_BK, labels_BK, strict=True)]
