"""What a run left, whichever of its files is named."""

from pathlib import Path

import safetensors
from torch import Tensor

from detkit.checkpoint.detector import read_detector
from detkit.checkpoint.file import DIGEST, UNREADABLE, PlainData, local
from detkit.checkpoint.training import manifest_path, read_checkpoint
from detkit.errors import CheckpointError

DETECTOR_FILE = "detector.safetensors"


def read_trained(path: str | Path) -> tuple[dict[str, Tensor], PlainData]:
    """The weights of the model that a run left, and what the run noted about it.

    Args:
        path: the run's folder, its detector.safetensors or one of its checkpoints; of a checkpoint come
            the averaged weights, which Lightning saves as the module's own.

    Raises:
        CheckpointError: as ``read_checkpoint`` and ``read_detector``.
    """
    path = local(path)
    if path.suffix != ".ckpt":
        return read_detector(path / DETECTOR_FILE if path.is_dir() else path)
    state, prefix = read_checkpoint(path), "model."
    weights, metadata = state.get("state_dict", {}), state.get("detkit", {})
    if not (isinstance(weights, dict) and isinstance(metadata, dict) and {type(name) for name in weights} <= {str}):
        raise CheckpointError(f"{path}: is no training checkpoint: its state_dict or what it notes has no names")
    return {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}, metadata


def is_own(path: Path) -> bool:
    """Whether detkit wrote this: a run's folder, a checkpoint beside its manifest, a detector file."""
    if path.suffix == ".safetensors" and path.is_file():
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                return DIGEST in (file.metadata() or {})
        except (OSError, *UNREADABLE):
            return False
    return path.is_dir() or (path.suffix == ".ckpt" and manifest_path(path).exists())
