"""Top-1 and top-5 accuracy of a classifier."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from detkit.metrics.names import distinct_names
from detkit.ops.ranks import of_all_ranks
from detkit.types import ClassTruth, ImageLabels, RankedClasses

SEEN, TOP1, TOP5 = 0, 1, 2  # rows of the counts


class Accuracy:
    """Top-1 and top-5 accuracy, and that of each class, over all images that were given to ``update``.

    With at most five classes top-5 is 1 if the decoder ranks all of them. An image without a ranked class counts as
    wrong. A number without images is -1. ``per_class`` gives the values of the last ``compute``, also after ``reset``.

    Args:
        ground_truth: the classes of the split.
    """

    per_class_name: ClassVar[str] = "top1"
    shown: ClassVar[Mapping[str, tuple[str, ...]]] = {"top1": ("top1",), "top5": ("top5",)}
    meanings: ClassVar[Mapping[str, str]] = {
        "top1": "images whose likeliest class is the true one",
        "top5": "images whose true class is among the five likeliest",
    }

    def __init__(self, ground_truth: ClassTruth) -> None:
        self.ground_truth = ground_truth
        self._counts = self._no_counts()
        self._last: np.ndarray | None = None

    def update(self, ranked: Sequence[RankedClasses], targets: ImageLabels) -> None:
        """Count the images of a batch.

        Args:
            ranked: the likeliest classes of each image, best first; of more than five the first five count.
            targets: of the same images.

        Raises:
            ValueError: if there is not one ranking for each target, or a label is no class index.
        """
        if len(ranked) != targets.num_images:
            raise ValueError(f"one ranking for each image; got {len(ranked)} for {targets.num_images} images")
        firsts = [image.labels[:5] for image in ranked]
        labels = torch.cat([targets.labels, *firsts]).cpu()  # one transfer
        true_labels, *best = labels.split([targets.num_images, *map(len, firsts)])
        image_ids = targets.image_ids.tolist()
        for true_label, best_labels, image_id in zip(true_labels.tolist(), best, image_ids, strict=True):
            self._check([true_label, *best_labels.tolist()], image_id)
            hits = (best_labels == true_label).tolist()
            self._counts[:, true_label] += (1, any(hits[:1]), any(hits))

    def compute(self) -> dict[str, Tensor]:
        """top1 and top5 of all ranks' images together: float64 scalars, the same on every rank."""
        self._last = counts = np.sum(of_all_ranks(self._counts), axis=0)  # exact, as integers
        seen, top1, top5 = counts.sum(axis=1).tolist()
        numbers = {"top1": _share(top1, seen), "top5": _share(top5, seen)}
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}

    def per_class(self) -> dict[str, float]:
        """Top-1 accuracy of the images of each class; -1 for a class without images.

        The category id is added to names that several classes have.

        Raises:
            RuntimeError: if nothing was computed yet.
        """
        if self._last is None:
            raise RuntimeError("nothing was computed yet; call compute() first")
        names = distinct_names(self.ground_truth.class_names, self.ground_truth.category_ids)
        counts = zip(self._last[TOP1].tolist(), self._last[SEEN].tolist(), strict=True)
        return {name: _share(hits, seen) for name, (hits, seen) in zip(names, counts, strict=True)}

    def reset(self) -> None:
        """Set all counts to 0."""
        self._counts = self._no_counts()

    def _no_counts(self) -> np.ndarray:
        return np.zeros((3, len(self.ground_truth.class_names)), dtype=np.int64)

    def _check(self, labels: list[int], image_id: int) -> None:
        num_classes = len(self.ground_truth.class_names)
        if not all(0 <= label < num_classes for label in labels):
            raise ValueError(
                f"labels must lie in [0, {num_classes}), one for each class of the ground truth; "
                f"image {image_id} has labels from {min(labels)} to {max(labels)}"
            )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else -1.0
