"""Errors that a user can fix, and common parts of their messages. Commands print them without a traceback."""

import difflib
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import NoReturn

MAX_NAMES = 10_000  # names in a folder that are compared with a misspelt one
MIN_PATH_LIKENESS = 0.75  # higher than for words, because file names have common suffixes


class DetkitError(Exception):
    """Base class of all errors that the user can fix. Any other exception is a bug and keeps its traceback."""

    exit_code = 1  # of a command that ends with this error


class RecipeError(DetkitError):
    """A recipe or one of its overrides is not valid."""

    exit_code = 78


class DataError(DetkitError):
    """A data set, an annotation or an image is not valid."""

    exit_code = 65


class CheckpointError(DetkitError):
    """A checkpoint or a detector file cannot be read, or does not match the model."""

    exit_code = 66


class TrainingError(DetkitError):
    """Training cannot continue, e.g. because the loss is not finite."""

    exit_code = 70


class ExportError(DetkitError):
    """A detector cannot be exported, or the exported file gives other detections."""

    exit_code = 69


class StorageError(DetkitError):
    """A file cannot be written: the disk is full, the folder is read-only, a quota is used up."""

    exit_code = 74


def did_you_mean(
    word: str, known: Iterable[str], max_words: int = 1, *, likeness: float = 0.6, list_all: bool = True
) -> str:
    """The end of a message about an unknown word: the most similar known words.

    Args:
        word: the unknown word.
        known: all known words.
        max_words: largest number of proposed words.
        likeness: smallest similarity of a proposed word, from 0 to 1.
        list_all: whether to list all known words if none is similar.
    """
    known = sorted(set(known))
    close = [repr(name) for name in difflib.get_close_matches(word, known, max_words, likeness)]
    if close:
        return f"; did you mean {' or '.join(filter(None, (', '.join(close[:-1]), close[-1])))}?"
    return f"; known: {', '.join(known)}" if known and list_all else ""


def nearest_path(path: str | Path) -> str:
    """The end of a message about a path that does not exist: the most similar existing path."""
    path = Path(path).expanduser()
    found, is_corrected = Path(path.anchor), False
    for name in path.relative_to(path.anchor).parts:
        try:
            names = [name] if (found / name).exists() else [entry.name for entry in islice(found.iterdir(), MAX_NAMES)]
        except OSError:
            return ""
        if not (close := difflib.get_close_matches(name, names, 1, MIN_PATH_LIKENESS)):
            break
        found, is_corrected = found / close[0], is_corrected or close[0] != name
    return f"; did you mean {str(found)!r}?" if is_corrected else ""


def stride_fault(image_hw: Sequence[int], stride: int) -> str | None:
    """The end of a message about an image size that does not fit a model; None if it fits.

    Args:
        image_hw: size of the images.
        stride: the model's largest stride in pixels.
    """
    if all(side >= stride and side % stride == 0 for side in image_hw):
        return None
    near = [max(1, round(side / stride)) * stride for side in image_hw]
    return (
        f"must be multiples of {stride}, the model's largest stride; got {list(image_hw)}, the nearest size is {near}"
    )


def run_script(main: Callable[[list[str]], None]) -> None:
    """Run a command and exit with its code: a ``DetkitError`` prints one line, a signal prints nothing.

    SIGTERM and Ctrl-C end the program at once, until training installs its own handlers.

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
    sys.exit(128 + number)  # the convention of shells
