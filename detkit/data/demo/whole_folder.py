"""Demo sets written to the disk so that a set appears only when it is complete, even if several processes write it."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from detkit.errors import DataError

MARKER = "demo.json"


class DemoSet(NamedTuple):
    """A set that is written on first use.

    Args:
        what: name of the set in errors.
        version: plain JSON that differs from the sets of other releases.
        write: called with an empty folder, writes the set into it.
    """

    what: str
    version: dict[str, int]
    write: Callable[[Path], None]

    def make(self, folder: Path) -> None:
        """Write the set into a temporary folder and rename that, if the set does not exist yet.

        Raises:
            DataError: if it cannot be written, or if the folder holds something else.
        """
        if self._is_complete(folder):
            return
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                self.write(draft)
                (draft / MARKER).write_text(json.dumps(self.version))
                self._publish(draft, folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        except OSError as error:
            raise DataError(
                f"{folder}: the {self.what} cannot be written there: {error.strerror}; "
                "set DETKIT_DEMO to a folder that can be written, or data.root to your own data"
            ) from error

    def _is_complete(self, folder: Path) -> bool:
        try:
            return json.loads((folder / MARKER).read_text()) == self.version
        except (OSError, ValueError):
            return False

    def _publish(self, draft: Path, folder: Path) -> None:
        draft.chmod(0o755)  # other users cannot read a temporary folder
        try:
            draft.rename(folder)
        except OSError as error:
            if not folder.exists():
                raise
            if not self._is_complete(folder):  # else another process has written the same set
                raise DataError(
                    f"{folder}: not the {self.what} of this version; remove it or choose another folder"
                ) from error
