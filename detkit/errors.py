"""Errors that a user can mend. Scripts print them as one line, without a traceback."""

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn


class DetkitError(Exception):
    """Base of all errors that the user can mend; anything else is a bug and keeps its traceback."""

    exit_code = 1  # of a script that ends with this error


class RecipeError(DetkitError):
    """A recipe, or an override of it, cannot be used as it stands."""

    exit_code = 78


class DataError(DetkitError):
    """A data set, an annotation or an image cannot be used as it stands."""

    exit_code = 65


class CheckpointError(DetkitError):
    """A checkpoint or a detector file cannot be read, or does not fit."""

    exit_code = 66


class TrainingError(DetkitError):
    """Training cannot go on as it stands, e.g. because the loss is not finite."""

    exit_code = 70


class ExportError(DetkitError):
    """A detector cannot be exported as it stands, or its export is not the same detector."""

    exit_code = 69


class StorageError(DetkitError):
    """A file cannot be written: the disk is full, the folder is read-only, a quota is used up."""

    exit_code = 74


def run_script(main: Callable[[list[str]], None]) -> None:
    """Run a script to its exit code: an error that the user can mend is one line, a signal is none.

    Until training takes the signals over, SIGTERM and Ctrl-C end the program at once.

    Args:
        main: called with the arguments of the command line.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit)
    try:
        main(sys.argv[1:])
    except DetkitError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


def _exit(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)  # as a shell counts
