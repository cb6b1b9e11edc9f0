"""Files that are whole or not there at all."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from detkit.errors import CheckpointError

DIGEST = "sha256"
UNREADABLE = (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError)


def replace(path: Path, write: Callable[[BinaryIO], Any]) -> int:
    """Write a file beside its place, sync it and move it there; returns the number of bytes."""
    temporary = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return size


def sync_folder(folder: Path) -> None:
    """Make what was moved or removed in a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def local(path: str | Path) -> Path:
    """A path of this machine, with ~ put in."""
    if "://" in str(path):
        raise CheckpointError(f"{path}: checkpoints are read from files only; download it first")
    return Path(path).expanduser()


def first_line(error: Exception) -> str:
    """What happened, for a message."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]
