"""Open regular files only."""

import errno
import io
import os
import stat
from pathlib import Path


def open_regular(path: str | Path, max_bytes: int | None = None) -> io.BufferedReader:
    """Open a regular file for reading.

    A pipe or a device is refused, because reading it may block or never end.

    Args:
        path: path of the file.
        max_bytes: larger files are refused; None: no limit.

    Raises:
        OSError: as ``open`` does, and if the file is refused; ``strerror`` gives the reason.
    """
    # O_NONBLOCK: a pipe without a writer is opened at once.
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115 - Path.open takes no opener
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a file, but a folder, a pipe or a device", str(path))
    if max_bytes is not None and found.st_size > max_bytes:
        file.close()
        raise OSError(errno.EFBIG, f"has {found.st_size:,} bytes; at most {max_bytes:,} are read", str(path))
    return file
