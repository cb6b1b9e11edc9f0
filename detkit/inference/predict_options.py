"""What may be asked of ``scripts/predict.py``."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from detkit.recipe.faults import Faults, nearest

SAVE = ("pictures", "coco", "csv", "yolo")
UNREADABLE = ("skip", "stop")


class Options(NamedTuple):
    """Which detector looks at what, and what is kept of it."""

    checkpoint: str = ""  # a run's folder or a detector file
    source: str = ""
    out: str = ""  # folder; empty: a new one, named by the time
    save: tuple[str, ...] = ("pictures", "coco")
    score_threshold: float = 0.25
    max_detections: int = 100
    batch_size: int = 8
    device: str = "auto"
    unreadable: str = "skip"  # a file that cannot be read is counted, or ends the run
    annotations: str = ""  # COCO file that the ids of images and categories are taken from
    trusted: str = ""  # packages whose classes a checkpoint may name


def read_options(argv: Sequence[str]) -> Options:
    """The options of a command line.

    Args:
        argv: ``key=value``.

    Raises:
        RecipeError: with every key or value that does not fit.
    """
    faults = Faults()
    texts = {}
    for argument in argv:
        key, equals, text = argument.partition("=")
        if not equals:
            faults.add(argument, "must have the form key=value, e.g. source=photos")
        elif key not in Options._fields:
            faults.add(key, f"no such key{nearest(key, Options._fields)}")
        else:
            texts[key] = text
    for key, example in (("checkpoint", "runs/NAME/TIME"), ("source", "photos")):
        if not texts.get(key):
            faults.add(key, f"is missing, e.g. {key}={example}")
    values = {key: _value(key, text, faults) for key, text in texts.items()}
    faults.raise_if_any("the arguments")
    return Options(**values)


def _value(key: str, text: str, faults: Faults) -> Any:
    """A text as the type that its key has; a fault is noted."""
    if key in ("max_detections", "batch_size"):
        if text.isdecimal() and int(text) > 0:
            return int(text)
        faults.add(key, f"must be a whole number from 1 on; got {text!r}")
    elif key == "score_threshold":
        score = _number(text)
        if score is not None and 0 <= score <= 1:
            return score
        faults.add(key, f"must be a number from 0 to 1; got {text!r}")
    elif key == "save":
        names = tuple(filter(None, text.removeprefix("[").removesuffix("]").replace(" ", "").split(",")))
        for name in names:
            if name not in SAVE:
                faults.add(key, f"must be some of {','.join(SAVE)}; got {name!r}")
        return tuple(dict.fromkeys(names))
    elif key == "unreadable" and text not in UNREADABLE:
        faults.add(key, f"must be {' or '.join(UNREADABLE)}; got {text!r}")
    return text


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
