"""Files of other projects, read without running what is in them."""

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from detkit.checkpoint import read_checkpoint
from detkit.errors import CheckpointError

SHOWN = 10
# Under which checkpoints keep weights; averaged ones go first, since they are what was evaluated.
NESTS = ("ema", "state_dict", "model", "model_state_dict", "module")
# What torch raises on a file that is cut, damaged or of another kind.
UNREADABLE = (
    *(RuntimeError, OSError, EOFError, ValueError, TypeError),
    *(LookupError, AttributeError, AssertionError, struct.error, safetensors.SafetensorError),
)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The weights in a .pth, .pt, .ckpt or .safetensors file: a state_dict, or a checkpoint with one in it.

    Raises:
        CheckpointError: if there is no such file, if it holds more than plain values and tensors, or
            no weights.
    """
    path = Path(path).expanduser()
    content = _read(path)
    if isinstance(content, Mapping) and "detkit" in content:
        read_checkpoint(path)  # one of detkit's without its mark: says what is missing
    state_dict = _without_nests(content)
    if not isinstance(state_dict, Mapping) or not state_dict:
        nests = ", ".join(repr(name) for name in NESTS)
        raise CheckpointError(f"{path}: holds no state_dict, neither itself nor under {nests}")
    others = [str(name) for name, value in state_dict.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{path}: holds no state_dict: {', '.join(others[:SHOWN])} are no tensors")
    return dict(state_dict)


def _without_nests(content: Any) -> Any:
    for name in NESTS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            return _without_nests(content[name])
    return content


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
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
        raise CheckpointError(f"{path}: is cut, damaged or no file of weights ({type(error).__name__})") from error
