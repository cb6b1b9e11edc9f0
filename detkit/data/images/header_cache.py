"""What was read of the image files of a folder, kept between runs, so that a second check reads only what is new.

A file counts as unchanged while its size and its times of change are what they were. What is kept lies in the
user's cache folder and never beside the data; if it is damaged or cannot be written, the files are read again.
"""

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from detkit.data.images.cache_folder import cache_folder
from detkit.data.images.header import ImageHeader, read_header
from detkit.data.images.threads import in_threads
from detkit.errors import DataError

WORTH_KEEPING = 500  # files; fewer are read again in no time,
WORTH_KEEPING_BYTES = 10**8  # unless they are large

_END_BYTES = 4096
_VERSION = 1  # a change of what is read or kept is another file
_Value = TypeVar("_Value")


class Stamp(NamedTuple):
    """What changes when the content of a file does."""

    size: int
    modified_ns: int
    changed_ns: int  # also where the time of modification was set back


def read_stamps(folder: Path, names: list[str]) -> list[Stamp | DataError]:
    """Stamps of files; an error for what is no plain file, which could keep its reader waiting for ever."""
    return in_threads(lambda name: _stamp(folder / name), names)


def read_sizes(folder: Path, names: list[str]) -> list[int | DataError]:
    """Bytes of each file."""
    return [stamp if isinstance(stamp, DataError) else stamp.size for stamp in read_stamps(folder, names)]


def read_headers(folder: Path, names: list[str]) -> list[ImageHeader | DataError]:
    """Headers of image files, and the errors of those that have none to read."""
    return _Known(folder, "header").read(names, read_header, list, _header)


def read_ends(folder: Path, names: list[str]) -> list[str | DataError]:
    """SHA-256 of the first and the last bytes of files."""
    return _Known(folder, "ends").read(names, _ends, str, str)


def read_digests(folder: Path, names: list[str]) -> list[str | DataError]:
    """SHA-256 of the contents of files."""
    return _Known(folder, "digest").read(names, _digest, str, str)


class _Known:
    """One kind of fact about the files of a folder: taken from the cache, or from the file."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        described = f"{_VERSION} {kind} {os.environ.get('DETKIT_MAX_PIXELS')} {folder.absolute()}"
        self.name = f"{kind}-{hashlib.sha256(os.fsencode(described)).hexdigest()[:32]}.json"

    def read(
        self,
        names: list[str],
        read: Callable[[Path], _Value],
        pack: Callable[[_Value], Any],
        unpack: Callable[[Any], _Value],
    ) -> list[_Value | DataError]:
        """The fact for each file, in the order of the names.

        Args:
            names: relative to the folder.
            read: how a file says it, or raises a DataError, which is not kept.
            pack: the fact as JSON has it.
            unpack: and back.
        """
        stamps = read_stamps(self.folder, names)
        sizes = [stamp.size for stamp in stamps if isinstance(stamp, Stamp)]
        is_worth_keeping = len(sizes) >= WORTH_KEEPING or sum(sizes) >= WORTH_KEEPING_BYTES
        old = _load(self.name) if is_worth_keeping else {}
        facts: list[Any] = list(stamps)
        wanted = []
        for row, (name, stamp) in enumerate(zip(names, stamps, strict=True)):
            if isinstance(stamp, DataError):
                continue
            known = old.get(name)
            if known is not None and tuple(known[0]) == stamp:
                facts[row] = unpack(known[1])
            else:
                wanted.append(row)
        new = in_threads(lambda row: _try(read, self.folder / names[row]), wanted)
        for row, fact in zip(wanted, new, strict=True):
            facts[row] = fact
            if not isinstance(fact, DataError):
                old[names[row]] = (stamps[row], pack(fact))
        if wanted and is_worth_keeping:
            _save(self.name, old)
        return facts


def _load(name: str) -> dict[str, Any]:
    """What is kept; nothing if it is not there, or is not what was written."""
    try:
        digest, _, text = (cache_folder() / "checks" / name).read_bytes().partition(b"\n")
    except (OSError, RuntimeError):
        return {}
    return json.loads(text) if digest == hashlib.sha256(text).hexdigest().encode() else {}


def _save(name: str, facts: dict[str, Any]) -> None:
    """Whole or not at all; a folder that cannot be written costs time and nothing else."""
    text = json.dumps(facts).encode()
    with contextlib.suppress(OSError, RuntimeError):
        path = cache_folder() / "checks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with _removed_at_the_end(path.with_name(f"{name}.{os.getpid()}")) as unfinished:
            unfinished.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
            unfinished.replace(path)


@contextlib.contextmanager
def _removed_at_the_end(path: Path) -> Iterator[Path]:
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _stamp(path: Path) -> Stamp | DataError:
    try:
        found = path.stat()
    except OSError as error:
        return DataError(f"{path}: cannot be read: {error.strerror}")
    if not stat.S_ISREG(found.st_mode):
        return DataError(f"{path}: not a file, but a folder, a pipe or a device")
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _try(read: Callable[[Path], _Value], path: Path) -> _Value | DataError:
    try:
        return read(path)
    except DataError as error:
        return error


def _header(values: list[Any]) -> ImageHeader:
    return ImageHeader(*values)


def _ends(path: Path) -> str:
    try:
        with path.open("rb") as file:
            first = file.read(_END_BYTES)
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END_BYTES))
            return hashlib.sha256(first + file.read(_END_BYTES)).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
