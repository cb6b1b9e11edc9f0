"""How the demo sets come to the disk: whole or not at all, however many processes ask for them at once."""

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
        what: its name in errors.
        version: what tells this set from those of other releases, plain JSON.
        write: writes it into an empty folder.
    """

    what: str
    version: dict[str, int]
    write: Callable[[Path], None]

    def make(self, folder: Path) -> None:
        """Write the set beside its place and move it there, if it is not there yet.

        Raises:
            DataError: if it cannot be written there, or if something else lies there.
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
        draft.chmod(0o755)  # temporary folders are closed to others
        try:
            draft.rename(folder)
        except OSError as error:
            if not folder.exists():
                raise
            if not self._is_complete(folder):  # else another process was faster, with the same pictures
                raise DataError(
                    f"{folder}: not the {self.what} of this version; remove it or choose another folder"
                ) from error
