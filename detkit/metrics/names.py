"""Names for the rows of a table of classes."""

from collections import Counter
from collections.abc import Sequence

import numpy as np


def distinct_names(class_names: Sequence[str], category_ids: np.ndarray) -> list[str]:
    """The names of the classes; the category id is added to names that several classes have."""
    counts = Counter(class_names)
    pairs = zip(class_names, category_ids.tolist(), strict=True)
    return [f"{name} ({number})" if counts[name] > 1 else name for name, number in pairs]
