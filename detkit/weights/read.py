"""Files of other projects, read without running what is in them."""

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detkit.errors import CheckpointError

SHOWN = 10
# What torch raises on a file that is cut, damaged or of another kind.
UNREADABLE = (
    *(RuntimeError, OSError, EOFError, ValueError, TypeError),
    *(LookupError, AttributeError, AssertionError, struct.error),
)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The weights in a file that torch wrote: a state_dict, or a checkpoint with one under "model".

    Raises:
        CheckpointError: if there is no such file, if it holds more than plain values and tensors, or
            no weights.
    """
    path = Path(path).expanduser()
    content = _read(path)
    state_dict = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise CheckpointError(f"{path}: holds no state_dict, neither itself nor under 'model'")
    others = [str(name) for name, value in state_dict.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{path}: holds no state_dict: {', '.join(others[:SHOWN])} are no tensors")
    return dict(state_dict)


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; weights are not downloaded, give a local path") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path}: is a folder; give the file of weights in it") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused: it is no torch file, or holds more than tensors and plain values; if it is your own, "
            "store its state_dict alone with torch.save"
        ) from error
    except UNREADABLE as error:
        raise CheckpointError(f"{path}: is cut, damaged or no torch file ({type(error).__name__})") from error
