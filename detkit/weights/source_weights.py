"""Weights of a file or a library, under detkit's names."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from detkit.models import Preprocess


class SourceWeights(NamedTuple):
    """Weights that can be loaded into a model."""

    source: str  # for messages
    weights: Mapping[str, Tensor]  # under the model's names as far as they are known
    class_names: Sequence[str] | None = None  # of the class rows; None if unknown
    preprocess: Preprocess | None = None  # of the training; None if unknown or part of the weights
    is_certain: bool = True  # if ``preprocess`` is not certain, the one in the recipe is preferred
