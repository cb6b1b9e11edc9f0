"""What may be asked of ``scripts/benchmark.py``."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, get_args

from detkit.errors import RecipeError
from detkit.recipe.options import Between, read_options_and_rest

EXAMPLES = {"checkpoint": "runs/NAME/TIME"}
RuntimeName = Literal["eager", "compile", "channels_last", "bf16", "onnx", "openvino", "openvino_bf16"]
RUNTIME_NAMES: tuple[RuntimeName, ...] = get_args(RuntimeName)


class Options(NamedTuple):
    """Which detector is measured, where, and how long."""

    checkpoint: str  # a run's folder, a detector file or an exported detector
    also: tuple[str, ...] = ()  # exported detectors to measure beside it
    runtimes: tuple[RuntimeName, ...] = RUNTIME_NAMES  # of a detector file; an exported one is what it is
    image_hw: tuple[str, ...] = ()  # 640 or HEIGHTxWIDTH; empty: as trained
    batch_size: tuple[Annotated[int, Between(1)], ...] = (1, 8)
    threads: tuple[Annotated[int, Between(1)], ...] = ()  # empty: as many as torch takes by itself
    device: str = "auto"
    warmup: Annotated[int, Between(1)] = 5  # looks at images that are not counted
    repeat: Annotated[int, Between(1)] = 30  # that are, at least
    least_s: Annotated[float, Between(0)] = 2.0  # of each row, at least
    most_s: Annotated[float, Between(0)] = 30.0  # of each row, at most, whatever repeat says
    score_threshold: Annotated[float, Between(0, 1)] = 0.25
    limit: Annotated[int, Between(1)] | None = None  # images that AP is measured on
    ap_sizes: Literal["trained", "all"] = "trained"
    split: str = "val"
    out: str = ""  # folder; empty: a new one, named by the time
    trusted: str = ""  # packages whose classes a checkpoint may name


def read_options(argv: Sequence[str]) -> tuple[Options, list[tuple[str, Any]]]:
    """The options of a command line, and those of the data set.

    Raises:
        RecipeError: with every key or value that does not fit.
    """
    options, data = read_options_and_rest(Options, argv, EXAMPLES)
    if any(key == "data.image_hw" for key, _ in data):
        raise RecipeError("data.image_hw: AP is measured at the sizes of image_hw=; set that")
    empty = [key for key in ("runtimes", "batch_size") if not getattr(options, key)]
    if empty:
        raise RecipeError(f"{empty[0]}: must name at least one; leave it out for all that are usual")
    return options, data


def sizes_of(texts: Sequence[str], trained_hw: tuple[int, int], largest_stride: int) -> list[tuple[int, int]]:
    """(height, width) of each text; the size as trained for none.

    Raises:
        RecipeError: if one is no size, or no multiple of the stride.
    """
    return [_size(text, largest_stride) for text in texts] or [trained_hw]


def _size(text: str, largest_stride: int) -> tuple[int, int]:
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() and int(side) for side in sides):
        raise RecipeError(f"image_hw={text}: must be pixels of both sides, or HEIGHTxWIDTH, e.g. 640 or 384x640")
    height, width = int(sides[0]), int(sides[-1])
    if height % largest_stride or width % largest_stride:
        nearest = "x".join(str(max(1, round(int(side) / largest_stride)) * largest_stride) for side in sides)
        raise RecipeError(
            f"image_hw={text}: must be multiples of {largest_stride}, the detector's largest stride, e.g. {nearest}"
        )
    return height, width
