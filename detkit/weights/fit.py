"""Weights of a file into a detector: what fits goes in, what does not is told."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from detkit.errors import CheckpointError

SHOWN = 10


class LoadReport(NamedTuple):
    """What of a file's weights went into a detector; ``str`` says it to people. Names are the detector's."""

    source: str
    total: int  # tensors of the detector
    loaded: tuple[str, ...]  # wholly, or some of their class rows
    missing: tuple[str, ...]  # in the detector, not in the file
    unexpected: tuple[str, ...]  # in the file, not in the detector
    other_shape: tuple[str, ...]  # each with both shapes
    num_classes: int  # of the detector
    kept_classes: tuple[int, ...]  # class indices of the detector whose rows came from the file

    def __str__(self) -> str:
        """One line if all fitted, else one more for each way in which something did not."""
        lines = [f"{self.source}: loaded {len(self.loaded)} of {self.total} tensors"]
        if len(self.kept_classes) < self.num_classes:
            kept = len(self.kept_classes)
            lines.append(f"  class rows: {kept} of {self.num_classes} from the file, the others start anew")
        for what in ("missing", "unexpected", "other_shape"):
            names = getattr(self, what)
            if names:
                lines.append(f"  {what.replace('_', ' ')}: {_first_few(names)}")
        return "\n".join(lines)


class ClassRows(NamedTuple):
    """Which tensors have a row for each class, and which rows of a file they take."""

    prefix: str  # of the tensors' names
    pairs: list[tuple[int, int]]  # (detector's row, file's row)


def pair_classes(
    num_own: int, own_names: Sequence[str] | None, num_file: int, file_names: Sequence[str] | None
) -> list[tuple[int, int]]:
    """(detector's row, file's row): by name where both sides have names, else all if as many, or none.

    Raises:
        ValueError: if there are not as many names as the detector has classes.
    """
    if own_names is not None and len(own_names) != num_own:
        raise ValueError(f"one name for each of the detector's {num_own} classes; got {len(own_names)}")
    if own_names is None or file_names is None:
        return [(row, row) for row in range(num_own)] if num_own == num_file else []
    file_rows = {_plain(name): row for row, name in enumerate(file_names)}
    return [(row, file_rows[_plain(name)]) for row, name in enumerate(own_names) if _plain(name) in file_rows]


def fit(weights: Mapping[str, Tensor], detector: nn.Module, class_rows: ClassRows, source: str) -> LoadReport:
    """Load what fits by name and shape, in the detector's own precision.

    Args:
        weights: of the file, under the detector's names.
        detector: changed in place, unless an error is raised.
        class_rows: tensors that may differ in the number of their rows.
        source: the file, for messages.

    Raises:
        CheckpointError: if the backbone does not fit wholly: training would start from noise.
    """
    own = detector.state_dict()
    fitted = {name: _fitted(name, tensor, own[name], class_rows) for name, tensor in weights.items() if name in own}
    fitting = {name: tensor for name, tensor in fitted.items() if tensor is not None}
    report = LoadReport(
        source,
        total=len(own),
        loaded=tuple(name for name in fitting if class_rows.pairs or not name.startswith(class_rows.prefix)),
        missing=tuple(name for name in own if name not in weights),
        unexpected=tuple(name for name in weights if name not in own),
        other_shape=tuple(
            f"{name} {tuple(weights[name].shape)} in the file, {tuple(own[name].shape)} in the detector"
            for name, tensor in fitted.items()
            if tensor is None
        ),
        num_classes=count_rows(own, class_rows.prefix),
        kept_classes=tuple(row for row, _ in class_rows.pairs),
    )
    if any(name.startswith("backbone.") and name not in fitting for name in own):
        raise CheckpointError(
            f"the weights are of another backbone; take the recipe of the same model and size\n{report}"
        )
    detector.load_state_dict(fitting, strict=False)
    return report


def count_rows(weights: Mapping[str, Tensor], prefix: str) -> int:
    """Most rows of the tensors whose names start so."""
    return max((len(tensor) for name, tensor in weights.items() if name.startswith(prefix)), default=0)


def _fitted(name: str, tensor: Tensor, own: Tensor, class_rows: ClassRows) -> Tensor | None:
    """The file's tensor in the shape of the detector's own, None if that cannot be."""
    if not name.startswith(class_rows.prefix):
        return tensor if tensor.shape == own.shape else None
    if tensor.shape[1:] != own.shape[1:]:
        return None
    rows = own.clone()
    for own_row, file_row in class_rows.pairs:
        rows[own_row] = tensor[file_row]
    return rows


def _plain(class_name: str) -> str:
    return class_name.strip().lower().replace("_", " ").replace("-", " ")


def _first_few(names: Sequence[str]) -> str:
    more = f", ... and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return "; ".join(names[:SHOWN]) + more
