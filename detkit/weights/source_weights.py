"""Weights that a file or a library gives, under detkit's names."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from detkit.models import Preprocess


class Given(NamedTuple):
    """What there is to load, whoever wrote it."""

    source: str  # for messages
    weights: Mapping[str, Tensor]  # under the model's names where they are known
    class_names: Sequence[str] | None = None  # of the class rows; None: not known
    preprocess: Preprocess | None = None  # what the weights expect of an image; None: among them, or not known
    is_certain: bool = True  # of the preprocess; if it is not, one that the recipe says goes first
