"""Layers with a row for each class, where classes of a file and of a model differ."""

from collections.abc import Mapping, Sequence

from torch import Tensor

# What heads call such layers, and how many rows each has after those of the classes.
CLASS_LAYERS = {"class_logits": 0, "cell_logits": 0, "noisy_classes": 1}
Pairs = list[tuple[int, int]]  # (model's row, file's row)


def is_class_layer(name: str) -> bool:
    """Whether a tensor of this name has a row for each class."""
    return not CLASS_LAYERS.keys().isdisjoint(name.split("."))


def count_class_rows(weights: Mapping[str, Tensor]) -> int:
    """How many classes there are rows for; 0 if there is no such layer."""
    return max((len(tensor) - _more_rows(name) for name, tensor in weights.items() if is_class_layer(name)), default=0)


def pair_classes(
    num_own: int, own_names: Sequence[str] | None, num_file: int, file_names: Sequence[str] | None
) -> Pairs:
    """By name where both sides have names, else all rows if there are as many, or none.

    Raises:
        ValueError: if there are not as many names as the model has classes.
    """
    if own_names is not None and num_own not in (0, len(own_names)):
        raise ValueError(f"one name for each of the model's {num_own} classes; got {len(own_names)}")
    if own_names is None or file_names is None or num_file != len(file_names):
        return [(row, row) for row in range(num_own)] if num_own == num_file else []
    file_rows = {_plain(name): row for row, name in enumerate(file_names)}
    return [(row, file_rows[_plain(name)]) for row, name in enumerate(own_names) if _plain(name) in file_rows]


def with_rows(name: str, own: Tensor, given: Tensor, pairs: Pairs) -> Tensor | None:
    """The model's own tensor with rows of the file's; None if they have other columns."""
    if given.shape[1:] != own.shape[1:] or any(row >= len(given) for _, row in pairs):
        return None
    rows = own.clone()
    for own_row, file_row in pairs:
        rows[own_row] = given[file_row]
    more = _more_rows(name)
    if pairs and more:
        rows[-more:] = given[-more:]
    return rows


def _more_rows(name: str) -> int:
    return max(CLASS_LAYERS.get(part, 0) for part in name.split("."))


def _plain(class_name: str) -> str:
    return class_name.strip().lower().replace("_", " ").replace("-", " ")
