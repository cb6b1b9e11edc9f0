"""Files that can be read to their end."""

import errno
import io
import os
import stat
from pathlib import Path


def open_regular(path: str | Path, max_bytes: int) -> io.BufferedReader:
    """Open a file to read it: no folder, pipe or device, which may block or never end, and none beyond measure.

    Raises:
        OSError: as ``open``, and with ``strerror`` saying so for what is not taken.
    """
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    found = os.fstat(file.fileno())
    if stat.S_ISREG(found.st_mode) and found.st_size <= max_bytes:
        return file
    file.close()
    if stat.S_ISREG(found.st_mode):
        raise OSError(errno.EFBIG, f"has {found.st_size} bytes; at most {max_bytes} are read", str(path))
    raise OSError(errno.EINVAL, "not a file, but a folder, a pipe or a device", str(path))
