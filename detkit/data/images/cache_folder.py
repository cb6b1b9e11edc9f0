"""Where detkit keeps what it can make again: the demo set, and what was read of image files."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The user's folder for it, by the rule of XDG; it may not be there yet.

    Raises:
        RuntimeError: if the user has no home folder, and XDG_CACHE_HOME does not name another.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "detkit"
