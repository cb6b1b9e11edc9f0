"""Headers and digests of image files, cached between runs, so that a second check reads only new files.

A file counts as unchanged while its size and its times of change are the same. The cache is in the user's cache
folder, never beside the data. If it is damaged or cannot be written, the image files are read again.
"""

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

from detkit.data.images.cache_folder import cache_folder
from detkit.data.images.header import ImageHeader, read_header
from detkit.data.images.threads import in_threads
from detkit.errors import DataError

MIN_CACHED_FILES = 500  # a folder with fewer files is not cached,
MIN_CACHED_BYTES = 10**8  # unless they are at least this large in sum

_END_BYTES = 4096
_VERSION = 1  # of what is read and of the cache's format
_Value = TypeVar("_Value")
_Json: TypeAlias = str | list[str | int]


class Stamp(NamedTuple):
    """Size and times of a file, which change with its content."""

    size: int
    modified_ns: int
    changed_ns: int  # differs also if a program has reset the time of modification


def read_stamps(folder: Path, names: list[str]) -> list[Stamp | DataError]:
    """Stamps of files; an error for a pipe or a device, which its reader could wait for without end."""
    return in_threads(lambda name: _stamp(folder / name), names)


def read_sizes(folder: Path, names: list[str]) -> list[int | DataError]:
    """Bytes of each file."""
    return [stamp if isinstance(stamp, DataError) else stamp.size for stamp in read_stamps(folder, names)]


def read_headers(folder: Path, names: list[str]) -> list[ImageHeader | DataError]:
    """Headers of image files, or the error for a file whose header cannot be read."""
    return _read_cached(folder, "header", names, read_header, list, ImageHeader._make)


def read_ends(folder: Path, names: list[str]) -> list[str | DataError]:
    """SHA-256 of the first and the last bytes of files."""
    return _read_cached(folder, "ends", names, _ends, str, str)


def read_digests(folder: Path, names: list[str]) -> list[str | DataError]:
    """SHA-256 of the contents of files."""
    return _read_cached(folder, "digest", names, _digest, str, str)


def _read_cached(
    folder: Path,
    kind: str,
    names: list[str],
    read: Callable[[Path], _Value],
    to_json: Callable[[_Value], _Json],
    from_json: Callable[[_Json], _Value],
) -> list[_Value | DataError]:
    """One value of each file, from the cache or from the file.

    Args:
        folder: of the files.
        kind: of the value.
        names: relative to the folder.
        read: reads the value from a file; a DataError that it raises is returned and not cached.
        to_json: converts the value for the cache.
        from_json: converts it back.
    """
    described = f"{_VERSION} {kind} {os.environ.get('DETKIT_MAX_PIXELS')} {folder.absolute()}"
    cache_name = f"{kind}-{hashlib.sha256(os.fsencode(described)).hexdigest()[:32]}.json"
    stamps = read_stamps(folder, names)
    sizes = [stamp.size for stamp in stamps if isinstance(stamp, Stamp)]
    is_cached = len(sizes) >= MIN_CACHED_FILES or sum(sizes) >= MIN_CACHED_BYTES
    cache = _load(cache_name) if is_cached else {}
    values: dict[int, _Value | DataError] = {}
    changed: list[tuple[int, Stamp]] = []  # rows of new and changed files
    for row, (name, stamp) in enumerate(zip(names, stamps, strict=True)):
        if isinstance(stamp, DataError):
            values[row] = stamp
        elif name in cache and tuple(cache[name][0]) == stamp:
            values[row] = from_json(cache[name][1])
        else:
            changed.append((row, stamp))
    read_values = in_threads(lambda row: _try(read, folder / names[row]), [row for row, _ in changed])
    for (row, stamp), value in zip(changed, read_values, strict=True):
        values[row] = value
        if not isinstance(value, DataError):
            cache[names[row]] = (stamp, to_json(value))
    if changed and is_cached:
        _save(cache_name, cache)
    return [values[row] for row in range(len(names))]


def _load(name: str) -> dict[str, tuple[Sequence[int], _Json]]:
    """The contents of a cache file, by the name of the image; empty if it does not exist or is damaged."""
    try:
        digest, _, text = (cache_folder() / "checks" / name).read_bytes().partition(b"\n")
    except (OSError, RuntimeError):
        return {}
    return json.loads(text) if digest == hashlib.sha256(text).hexdigest().encode() else {}


def _save(name: str, contents: Mapping[str, tuple[Sequence[int], _Json]]) -> None:
    """Replace a cache file in one step; a folder that cannot be written is no error."""
    text = json.dumps(contents).encode()
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
