"""The folder for files that detkit can make again: the demo set and the cache of image headers."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The user's cache folder by the XDG rules; it may not exist yet.

    Raises:
        RuntimeError: if the user has no home folder and XDG_CACHE_HOME is not set.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "detkit"
