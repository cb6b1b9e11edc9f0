"""Failures to write files of a run: stop or continue, on all ranks together."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from detkit.checkpoint import storage_errors
from detkit.errors import StorageError
from detkit.training.settings import OnFailure

LOG = logging.getLogger(__name__)


class FailedWrites:
    """Records failures to write files of the run, on rank 0, which writes all files.

    At the end of the step all ranks stop together. If rank 0 raised alone, the other ranks would wait for it.

    Args:
        on_failure: stop: the run ends with a StorageError; continue: the run logs a warning and continues.

    Attributes:
        count: number of failures.
        last: message of the last failure.
    """

    def __init__(self, on_failure: OnFailure = "stop") -> None:
        self.on_failure = on_failure
        self.count = 0
        self.last = ""

    @property
    def must_stop(self) -> bool:
        """Whether the run has to end because of a failure."""
        return self.count > 0 and self.on_failure == "stop"

    @contextlib.contextmanager
    def recording(self, path: Path) -> Iterator[None]:
        """Context in which a file is written: a failure is recorded and not raised."""
        try:
            with storage_errors(path):
                yield
        except StorageError as error:
            self.record(str(error))

    def record(self, message: str) -> None:
        """Record a failure, and log a warning if the run continues."""
        self.count += 1
        self.last = message
        if self.on_failure == "continue":
            LOG.warning(
                "warning: %s. The run continues (checkpoint.on_failure=continue; failure %d)", message, self.count
            )
