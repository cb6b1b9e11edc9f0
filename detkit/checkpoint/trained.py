"""Read the trained weights of a run from its folder, detector file or checkpoint."""

from pathlib import Path

import safetensors
from torch import Tensor

from detkit.checkpoint.detector import read_detector
from detkit.checkpoint.file import DIGEST, UNREADABLE, PlainData, local_path
from detkit.checkpoint.training import manifest_path, read_checkpoint
from detkit.errors import CheckpointError

DETECTOR_FILE = "detector.safetensors"


def read_trained(path: str | Path) -> tuple[dict[str, Tensor], PlainData]:
    """The weights of a trained model, and its metadata.

    Args:
        path: a run's folder, its detector.safetensors or one of its checkpoints. The weights of a checkpoint are the
            averaged ones, which Lightning saves as the state_dict of the module.

    Raises:
        CheckpointError: as ``read_checkpoint`` and ``read_detector``.
    """
    path = local_path(path)
    if path.suffix != ".ckpt":
        return read_detector(path / DETECTOR_FILE if path.is_dir() else path)
    state, prefix = read_checkpoint(path), "model."
    weights, metadata = state.get("state_dict", {}), state.get("detkit", {})
    if not (isinstance(weights, dict) and isinstance(metadata, dict) and {type(name) for name in weights} <= {str}):
        raise CheckpointError(f"{path}: is no training checkpoint: its state_dict or its metadata has no names")
    return {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}, metadata


def written_by_detkit(path: Path) -> bool:
    """Whether detkit wrote this: a run's folder, a checkpoint with its manifest, or a detector file."""
    if path.suffix == ".safetensors" and path.is_file():
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                return DIGEST in (file.metadata() or {})
        except (OSError, *UNREADABLE):
            return False
    return path.is_dir() or (path.suffix == ".ckpt" and manifest_path(path).exists())
