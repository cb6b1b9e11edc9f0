"""The options of ``detkit benchmark``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from detkit.errors import CheckpointError, RecipeError, stride_fault
from detkit.exporting.options import SplitName
from detkit.recipe.options import Between

RuntimeName = Literal["eager", "compile", "channels_last", "bf16", "onnx", "openvino", "openvino_bf16"]
RUNTIME_NAMES: tuple[RuntimeName, ...] = get_args(RuntimeName)


@dataclass(frozen=True)
class BenchmarkOptions:
    """Which detector is measured, where, and how long.

    Args:
        checkpoint: a run's folder, a detector file or an exported detector, which is measured as it is.
        also: exported detectors to measure beside it.
        runtimes: runtimes of a detector file; those that are not installed are left out.
        image_hw: sizes in pixels, 640 or HEIGHTxWIDTH; without it as trained.
        batch_size: images that go through the network together; one row each.
        threads: threads of the CPU; without it as many as torch takes by itself.
        device: auto, cpu, cuda or cuda:NUMBER.
        warmup: runs before those that are counted.
        repeat: runs that are counted, at least.
        least_s: seconds of each row, at least.
        most_s: seconds of each row, at most, also if repeat is not reached.
        score_threshold: lowest score of a detection.
        limit: images that AP is measured on; null: all of the split.
        ap_sizes: trained measures AP at the size as trained if that is among the sizes, all at every one.
        split: split of the data that AP is measured on.
        out: folder of the results; without it a new one, runs/benchmark/TIME.
        trusted: packages whose classes the checkpoint may name.
    """

    checkpoint: str = field(metadata={"example": "runs/NAME/TIME", "exists": CheckpointError})
    also: tuple[str, ...] = field(default=(), metadata={"exists": CheckpointError})
    runtimes: tuple[RuntimeName, ...] = RUNTIME_NAMES
    image_hw: tuple[str, ...] = ()
    batch_size: tuple[Annotated[int, Between(1)], ...] = (1, 8)
    threads: tuple[Annotated[int, Between(1)], ...] = ()
    device: str = "auto"
    warmup: Annotated[int, Between(1)] = 5
    repeat: Annotated[int, Between(1)] = 30
    least_s: Annotated[float, Between(0)] = 2.0
    most_s: Annotated[float, Between(0)] = 30.0
    score_threshold: Annotated[float, Between(0, 1)] = 0.25
    limit: Annotated[int, Between(1)] | None = None
    ap_sizes: Literal["trained", "all"] = "trained"
    split: SplitName = "val"
    out: str = ""
    trusted: tuple[str, ...] = ()


def check_options(options: BenchmarkOptions, data: Sequence[tuple[str, Any]]) -> None:
    """Compare the options with each other and with the keys of the data.

    Raises:
        RecipeError: if a list is empty that must not be, or data.image_hw is set.
    """
    if any(key == "data.image_hw" for key, _ in data):
        raise RecipeError("data.image_hw: AP is measured at the sizes of image_hw=; set that")
    lists = {"runtimes": options.runtimes, "batch_size": options.batch_size}
    if empty := [key for key, values in lists.items() if not values]:
        raise RecipeError(f"{empty[0]}: must name at least one; leave it out for all that are usual")


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
    if fault := stride_fault((height, width), largest_stride):
        raise RecipeError(f"image_hw={text}: {fault}")
    return height, width
