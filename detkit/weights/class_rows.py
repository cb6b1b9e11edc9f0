"""Load layers with one row per class if file and model have different classes."""

from collections.abc import Mapping, Sequence

from torch import Tensor

# Names of such layers in heads, and the number of rows after those of the classes.
CLASS_LAYERS = {"class_logits": 0, "cell_logits": 0, "noisy_classes": 1}
RowPairs = list[tuple[int, int]]  # (row of the model, row of the file)


def is_class_layer(name: str) -> bool:
    """Whether a tensor of this name has a row for each class."""
    return not CLASS_LAYERS.keys().isdisjoint(name.split("."))


def count_class_rows(weights: Mapping[str, Tensor]) -> int:
    """Number of classes with rows; 0 if there is no such layer."""
    return max((len(tensor) - _more_rows(name) for name, tensor in weights.items() if is_class_layer(name)), default=0)


def pair_classes(
    num_own: int, own_names: Sequence[str] | None, num_file: int, file_names: Sequence[str] | None
) -> RowPairs:
    """Pair rows by class name if both sides have names; else pair all rows if their numbers are equal.

    Raises:
        ValueError: if the number of names is not the number of the model's classes.
    """
    if own_names is not None and num_own not in (0, len(own_names)):
        raise ValueError(f"class_names must name each of the model's {num_own} classes; got {len(own_names)}")
    if own_names is None or file_names is None or num_file != len(file_names):
        return [(row, row) for row in range(num_own)] if num_own == num_file else []
    file_rows = {_plain(name): row for row, name in enumerate(file_names)}
    return [(row, file_rows[_plain(name)]) for row, name in enumerate(own_names) if _plain(name) in file_rows]


def with_rows(name: str, own: Tensor, source: Tensor, pairs: RowPairs) -> Tensor | None:
    """The model's tensor with rows of the file's tensor; None if their columns differ."""
    if source.shape[1:] != own.shape[1:] or any(row >= len(source) for _, row in pairs):
        return None
    rows = own.clone()
    for own_row, file_row in pairs:
        rows[own_row] = source[file_row]
    more = _more_rows(name)
    if pairs and more:
        rows[-more:] = source[-more:]
    return rows


def _more_rows(name: str) -> int:
    return max(CLASS_LAYERS.get(part, 0) for part in name.split("."))


def _plain(class_name: str) -> str:
    return class_name.strip().lower().replace("_", " ").replace("-", " ")
