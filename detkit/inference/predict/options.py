"""What may be asked of ``scripts/predict.py``."""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from detkit.inference.tiling.windows import LEAST_SLICE, MOST_OVERLAP
from detkit.recipe.options import Between
from detkit.recipe.options import read_options as read

EXAMPLES = {"checkpoint": "runs/NAME/TIME", "source": "photos"}
Saved = Literal["pictures", "coco", "csv", "yolo"]


class Options(NamedTuple):
    """Which detector looks at what, and what is kept of it."""

    checkpoint: str  # a run's folder or a detector file
    source: str
    out: str = ""  # folder; empty: a new one, named by the time
    save: tuple[Saved, ...] = ("pictures", "coco")
    score_threshold: Annotated[float, Between(0, 1)] = 0.25
    max_detections: Annotated[int, Between(1)] = 100
    batch_size: Annotated[int, Between(1)] = 8
    slices: Annotated[int, Between(LEAST_SLICE)] | None = None  # side of windows that are looked at as well
    overlap: Annotated[float, Between(0, MOST_OVERLAP)] = 0.2  # of windows
    flip: bool = False  # look at the mirrored image as well
    device: str = "auto"
    unreadable: Literal["skip", "stop"] = "skip"  # a file that cannot be read is counted, or ends the run
    annotations: str = ""  # COCO file that the ids of images and categories are taken from
    trusted: str = ""  # packages whose classes a checkpoint may name


def read_options(argv: Sequence[str]) -> Options:
    """The options of a command line.

    Raises:
        RecipeError: with every key or value that does not fit.
    """
    return read(Options, argv, EXAMPLES)
