"""What happens when a file of the run cannot be written."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import lightning as L

from detkit.checkpoint import storing
from detkit.errors import StorageError
from detkit.training.settings import OnFailure

LOG = logging.getLogger(__name__)


class FailedWrites:
    """Failures to write files of the run, noted where they happen: on rank 0, which writes them.

    The other ranks are told at the end of the step, and all end together; a rank that raised alone
    would leave the others waiting for it.

    Args:
        on_failure: stop: the run ends there with a StorageError; continue: it logs a warning and goes on.

    Attributes:
        count: how many there were.
        last: message of the last one.
    """

    def __init__(self, on_failure: OnFailure = "stop") -> None:
        self.on_failure = on_failure
        self.count = 0
        self.last = ""

    @property
    def end_the_run(self) -> bool:
        return self.count > 0 and self.on_failure == "stop"

    @contextlib.contextmanager
    def noting(self, path: Path) -> Iterator[None]:
        """Around what writes a file: a failure is noted, and not raised here."""
        try:
            with storing(path):
                yield
        except StorageError as error:
            self.note(str(error))

    def note(self, message: str) -> None:
        """Count a failure, and warn of it if the run goes on."""
        self.count += 1
        self.last = message
        if self.on_failure == "continue":
            LOG.warning(
                "warning: %s. The run goes on (checkpoint.on_failure=continue; failure %d)", message, self.count
            )

    def raise_together(self, trainer: L.Trainer) -> None:
        """To be called by all ranks, once they know that rank 0 has to end the run.

        Raises:
            StorageError: with what rank 0 noted.
        """
        raise StorageError(trainer.strategy.broadcast(self.last))
