"""Read weight files of other projects without running their code."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from detkit.checkpoint import UNREADABLE, error_line, load_plain, local_path, read_checkpoint
from detkit.errors import CheckpointError, nearest_path
from detkit.files import open_regular

SHOWN = 10
DEEPEST = 4  # levels of nesting
# Keys under which checkpoints keep weights; averaged weights first, because those were evaluated.
NESTING_KEYS = ("ema", "state_dict", "model", "model_state_dict", "module")


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The state_dict in a .pth, .pt, .ckpt or .safetensors file, which may be a checkpoint.

    Raises:
        CheckpointError: if the file is missing, has other content than plain values and tensors, or no weights.
    """
    path = local_path(path)
    content = _read(path)
    if isinstance(content, Mapping) and "detkit" in content:
        read_checkpoint(path)  # a detkit checkpoint without its manifest, which raises an error
    state_dict = _innermost(content)
    if not isinstance(state_dict, Mapping) or not state_dict:
        keys = ", ".join(repr(name) for name in NESTING_KEYS)
        raise CheckpointError(f"{path}: contains no state_dict, neither at its top nor under {keys}")
    others = [name for name, value in state_dict.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if others:
        named = ", ".join(_format_name(name) for name in others[:SHOWN])
        raise CheckpointError(f"{path}: contains no state_dict: {named} are no tensors")
    return dict(state_dict)


def _format_name(name: object) -> str:
    """A name for a message, with control characters escaped."""
    if not isinstance(name, str):
        return f"a {type(name).__name__}"
    return name if name.isprintable() else ascii(name)


def _innermost(content: object) -> object:
    for _ in range(DEEPEST):
        inner = (content.get(name) for name in NESTING_KEYS) if isinstance(content, Mapping) else ()
        nested = next((value for value in inner if isinstance(value, Mapping)), None)
        if nested is None:
            break
        content = nested
    return content


def _read(path: Path) -> object:
    try:
        with open_regular(path) as file:
            if path.suffix != ".safetensors":
                return load_plain(file)
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        hint = nearest_path(path) or "; weights are not downloaded, give a local path"
        raise CheckpointError(f"{path}: no such file{hint}") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path}: is a folder; give the file of weights in it") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused: it is no torch file, or has other content than tensors and plain values "
            f"({error_line(error)}); if you trust it, store only its state_dict with torch.save"
        ) from error
    except UNREADABLE as error:
        raise CheckpointError(f"{path}: is cut, damaged or no file of weights ({type(error).__name__})") from error
