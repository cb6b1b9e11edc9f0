"""Weights to start from, whoever wrote them."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from detkit.errors import CheckpointError
from detkit.weights.fit import LoadReport
from detkit.weights.read import read_state_dict
from detkit.weights.yolox import is_yolox, load_yolox


def load_weights(path: str | Path, detector: nn.Module, class_names: Sequence[str] | None = None) -> LoadReport:
    """Load another project's weights into a detector; the names in the file tell whose they are.

    Args:
        path: the file.
        detector: changed in place, unless an error is raised.
        class_names: of the detector: class rows of the file are kept by name.

    Raises:
        CheckpointError: if the file cannot be read, nobody known wrote it, or it does not fit.
    """
    state_dict = read_state_dict(path)
    if is_yolox(state_dict):
        return load_yolox(state_dict, detector, class_names, source=str(path))
    raise CheckpointError(
        f"{path}: is of no known project, its names begin with {', '.join(list(state_dict)[:3])}; "
        "known are YOLOX's .pth files"
    )
