"""Write files atomically, and describe failures to write."""

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

PlainData = dict[str, Any]  # JSON values: text, numbers, booleans, null, and lists and maps of them
DIGEST = "sha256"
TIME_FORMAT = "%Y-%m-%d_%H-%M-%S"  # of folder names
# Exceptions of torch, safetensors and json for files that are cut, damaged, of another kind or malicious.
UNREADABLE = (
    *(pickle.UnpicklingError, safetensors.SafetensorError, struct.error, AssertionError, AttributeError),
    *(EOFError, LookupError, MemoryError, RuntimeError, TypeError, ValueError, ArithmeticError),
)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "the quota is used up; free some space there",
    errno.EACCES: "make the folder writable",
    errno.EPERM: "make the folder writable",
    errno.EROFS: "the file system is mounted read-only",
    errno.EFBIG: "raise the limit on the file size (ulimit -f)",
    errno.EEXIST: "one of the folders in the path is a file",
    errno.ENOTDIR: "one of the folders in the path is a file",
    errno.EIO: "the disk reports a fault; see the log of the system",
}


@contextlib.contextmanager
def storage_errors(path: Path, needed: int | None = None) -> Iterator[None]:
    """Replace an OSError by a StorageError with the path, the reason and a remedy.

    Args:
        path: path of the file that is written.
        needed: size in bytes, if known.

    Raises:
        StorageError: if an OSError was raised.
    """
    try:
        yield
    except OSError as error:
        free, space = free_bytes(path), None
        if error.errno in FULL and needed is not None and free is not None:
            space = f"about {format_bytes(needed)} needed, {format_bytes(free)} free"
        parts = [error.strerror or str(error), space, REMEDIES.get(error.errno or 0)]
        raise StorageError(f"{path}: cannot be written: {'; '.join(filter(None, parts))}") from error


def free_bytes(path: Path) -> int | None:
    """Free bytes at the place of a file that may not exist yet; None if the file system does not report them."""
    folder = path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def format_bytes(size: int) -> str:
    """A number of bytes as text with a unit."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1e3:.1f} kB"


@contextlib.contextmanager
def temporary_file(path: Path, write: Callable[[BinaryIO], object]) -> Iterator[Path]:
    """A complete, synced temporary file in the folder of ``path``; removed at the end if it was not moved."""
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
    """Move a file to its final path, atomically and durably."""
    temporary.replace(path)
    sync_folder(path.parent)


def replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file atomically: write a temporary file, sync it and move it to ``path``."""
    with temporary_file(path, write) as temporary:
        move(temporary, path)


def make_folder(folder: Path) -> None:
    """Create a folder durably."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


def new_folder(parent: Path) -> Path:
    """Create a folder that is named by the time, with a number if there are several in one second."""
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
    """Make moves and removals in a folder durable, also after a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class HashingFile:
    """A file that computes the hash and the size of the data written to it.

    Attributes:
        size: bytes written so far.
        failure: the OSError of a failed write, because torch hides it.
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
        with self._recording():
            return self._file.write(data)

    def flush(self) -> None:
        with self._recording():
            self._file.flush()

    @contextlib.contextmanager
    def _recording(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = error
            raise


def local_path(path: str | Path) -> Path:
    """A path in the local file system, with ~ expanded."""
    if "://" in str(path):
        raise CheckpointError(f"{path}: checkpoints are read from local files only; download it first")
    return Path(path).expanduser()


def error_line(error: Exception) -> str:
    """The type and the first line of an exception."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]
