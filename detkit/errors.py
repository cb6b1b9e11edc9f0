"""Errors that a user can mend, and what several of them say. Commands print them as one line, without a traceback."""

import difflib
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import NoReturn

MOST_NAMES = 10_000  # of a folder that are compared with a misspelt one
LIKENESS_OF_PATHS = 0.75  # more than of words, because names of files share their suffixes


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


def did_you_mean(
    word: str, known: Iterable[str], at_most: int = 1, *, likeness: float = 0.6, list_all: bool = True
) -> str:
    """The end of a message about an unknown word: the known words that are most like it.

    Args:
        word: that is not among the known ones.
        known: what could have been meant.
        at_most: how many words are proposed.
        likeness: that a proposed word needs, from 0 to 1.
        list_all: whether all known words are listed where none is like it.
    """
    known = sorted(set(known))
    close = [repr(name) for name in difflib.get_close_matches(word, known, at_most, likeness)]
    if close:
        return f"; did you mean {' or '.join(filter(None, (', '.join(close[:-1]), close[-1])))}?"
    return f"; known: {', '.join(known)}" if known and list_all else ""


def nearest_path(path: str | Path) -> str:
    """The end of a message about a path that does not exist: the existing one whose names are most like it."""
    path = Path(path).expanduser()
    found, is_corrected = Path(path.anchor), False
    for name in path.relative_to(path.anchor).parts:
        try:
            names = [name] if (found / name).exists() else [entry.name for entry in islice(found.iterdir(), MOST_NAMES)]
        except OSError:
            return ""
        if not (close := difflib.get_close_matches(name, names, 1, LIKENESS_OF_PATHS)):
            break
        found, is_corrected = found / close[0], is_corrected or close[0] != name
    return f"; did you mean {str(found)!r}?" if is_corrected else ""


def stride_fault(image_hw: Sequence[int], stride: int) -> str | None:
    """The end of a message about images of a size that a model cannot take; None if it can.

    Args:
        image_hw: size of the images.
        stride: the model's largest one, in pixels.
    """
    if all(side >= stride and side % stride == 0 for side in image_hw):
        return None
    near = [max(1, round(side / stride)) * stride for side in image_hw]
    return (
        f"must be multiples of {stride}, the model's largest stride; got {list(image_hw)}, the nearest size is {near}"
    )


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
