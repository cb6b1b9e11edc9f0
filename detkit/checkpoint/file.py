"""Files that are whole or not there at all."""

import contextlib
import datetime as dt
import errno
import hashlib
import os
import pickle
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import safetensors

from detkit.errors import CheckpointError, StorageError

PlainData = dict[str, Any]  # JSON: text, numbers, booleans, null, and lists and maps of them
DIGEST = "sha256"
TIME_FORMAT = "%Y-%m-%d_%H-%M-%S"  # of the names of folders
# What torch, safetensors and json raise of a file that is cut, damaged, of another kind or made to harm.
UNREADABLE = (
    *(pickle.UnpicklingError, safetensors.SafetensorError, struct.error, AssertionError, AttributeError),
    *(EOFError, LookupError, MemoryError, RuntimeError, TypeError, ValueError, ArithmeticError),
)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REMEDIES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "the quota is used up; make room there",
    errno.EACCES: "make the folder writable",
    errno.EPERM: "make the folder writable",
    errno.EROFS: "the file system is mounted for reading only",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EEXIST: "a file is where one of its folders should be",
    errno.ENOTDIR: "a file is where one of its folders should be",
    errno.EIO: "the disk reports a fault; the system's log has more",
}


@contextlib.contextmanager
def storing(path: Path, needed: int | None = None) -> Iterator[None]:
    """Say of any failure to write a file which file, why, and what to do.

    Args:
        path: of the file.
        needed: bytes, if known.

    Raises:
        StorageError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        parts = [error.strerror or str(error), _room(path, needed) if error.errno in FULL else None]
        parts.append(REMEDIES.get(error.errno or 0))
        raise StorageError(f"{path}: cannot be written: {'; '.join(filter(None, parts))}") from error


def free_bytes(path: Path) -> int | None:
    """What is free where a file is going to be; None if the file system does not say."""
    folder = path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def readable(size: int) -> str:
    """A number of bytes, for a message."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1e3:.1f} kB"


@contextlib.contextmanager
def beside(path: Path, write: Callable[[BinaryIO], object]) -> Iterator[Path]:
    """A file that is whole and synced, next to its place: to be moved there, and removed if it was not."""
    temporary = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def move(temporary: Path, path: Path) -> None:
    """Put a file into its place, in one step that lasts through a power cut."""
    temporary.replace(path)
    sync_folder(path.parent)


def replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside its place, sync it and move it there."""
    with beside(path, write) as temporary:
        move(temporary, path)


def make_folder(folder: Path) -> None:
    """Make a folder that lasts through a power cut."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


def new_folder(parent: Path) -> Path:
    """A new folder, named by the time; the second one of the same second gets a number."""
    name = dt.datetime.now().astimezone().strftime(TIME_FORMAT)
    folder, number = parent / name, 1
    while True:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            folder = parent / f"{name}_{number}"
        else:
            return folder


def sync_folder(folder: Path) -> None:
    """Make what was moved or removed in a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Hashing:
    """A file that hashes and counts what is written to it, and keeps the reason if that fails.

    Attributes:
        size: bytes so far.
        failure: what the system said; torch only says that something failed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.size = 0
        self.failure: OSError | None = None
        self._file = file
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self.size += len(data)
        with self._noting():
            return self._file.write(data)

    def flush(self) -> None:
        with self._noting():
            self._file.flush()

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = error
            raise


def local(path: str | Path) -> Path:
    """A path of this machine, with ~ put in."""
    if "://" in str(path):
        raise CheckpointError(f"{path}: checkpoints are read from files only; download it first")
    return Path(path).expanduser()


def first_line(error: Exception) -> str:
    """What happened, for a message."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _room(path: Path, needed: int | None) -> str | None:
    free = free_bytes(path)
    if needed is None or free is None:
        return None
    return f"about {readable(needed)} needed, {readable(free)} free"
