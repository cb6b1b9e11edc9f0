"""Files that can be read to their end."""

import errno
import io
import os
import stat
from pathlib import Path


def open_regular(path: str | Path, max_bytes: int | None = None) -> io.BufferedReader:
    """Open a regular file for reading.

    A pipe or a device is refused, because reading it may block or never end.

    Args:
        path: of the file.
        max_bytes: a larger file is refused; None: no limit.

    Raises:
        OSError: as ``open``, and if the file is refused; ``strerror`` gives the reason.
    """
    file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 - Path.open knows no opener
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a file, but a folder, a pipe or a device", str(path))
    if max_bytes is not None and found.st_size > max_bytes:
        file.close()
        raise OSError(errno.EFBIG, f"has {found.st_size:,} bytes; at most {max_bytes:,} are read", str(path))
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    """As ``open`` does it, but a pipe that nobody writes to is opened at once."""
    return os.open(path, flags | os.O_NONBLOCK)
