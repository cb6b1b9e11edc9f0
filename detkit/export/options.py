"""What may be asked of ``scripts/export.py``."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from detkit.errors import ExportError, RecipeError
from detkit.inference.runtimes.forms import INSTALL, SUFFIXES, Dynamic, Format, Outputs
from detkit.recipe.faults import Faults
from detkit.recipe.options import Between, read_options_and_rest

Precision = Literal["fp32", "fp16", "int8"]
Share = Annotated[float, Between(0, 1)]
EXAMPLES = {"checkpoint": "runs/NAME/TIME"}
LIBRARIES: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "openvino": ("onnx", "onnxruntime", "onnxscript", "openvino"),
    "torch_export": ("onnx", "onnxruntime"),
    "torchscript": ("onnx", "onnxruntime"),
}
OF_CHECKPOINT = {  # keys of its data that the export takes over, and why the check may not have others
    "data.image_hw": "the size is that of the export; set image_hw",
    "data.resize": "images come to the network as the checkpoint has learnt them, and the file says the same",
}
TOLERANCES: dict[Precision, float] = {"fp32": 0.1, "fp16": 0.1, "int8": 1.0}


class Options(NamedTuple):
    """Which detector becomes which file, and how it is checked."""

    checkpoint: str  # a run's folder or a detector file
    format: Format = "onnx"
    out: Path | None = None  # null: beside the detector file
    outputs: Outputs | None = None  # null: detections where the format can, else decoded
    input: Literal["float32", "uint8"] = "float32"
    dynamic: Dynamic = "batch"
    image_hw: tuple[int, int] | None = None  # null: as trained
    precision: Precision = "fp32"
    score_threshold: Share | None = None  # of the decoder; null: as in the recipe, and so the next two
    iou_threshold: Share | None = None
    max_detections: Annotated[int, Between(1)] | None = None
    tolerance: Annotated[float, Between(0, 100)] | None = None  # AP points; null: 0.1, of int8 1
    limit: Annotated[int, Between(1)] | None = None  # images of the check; null: all
    calibration: Annotated[int, Between(1)] = 128  # images of the training split that give int8 its ranges
    batch_size: Annotated[int, Between(1, 4096)] = 4  # of the check
    split: Literal["train", "val", "test"] = "val"
    allow_difference: bool = False
    trusted: str = ""  # packages whose classes a checkpoint may name

    @property
    def ap_tolerance(self) -> float:
        """In AP points, hundredths."""
        return TOLERANCES[self.precision] if self.tolerance is None else self.tolerance

    @property
    def packages(self) -> tuple[str, ...]:
        """Those that are trusted."""
        return tuple(filter(None, self.trusted.split(",")))

    def decode_changes(self) -> dict[str, Any]:
        """Arguments of the decoder that differ from the recipe's."""
        names = ("score_threshold", "iou_threshold", "max_detections")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def read_options(argv: Sequence[str]) -> tuple[Options, list[tuple[str, Any]]]:
    """The options of a command line, and the data.* keys that go to the recipe.

    Raises:
        RecipeError: with every key or value that does not fit, or does not fit the others.
        ExportError: if the libraries of the format are not installed.
    """
    options, pairs = read_options_and_rest(Options, argv, EXAMPLES)
    faults = Faults()
    if options.precision != "fp32" and options.format not in ("onnx", "openvino"):
        faults.add("precision", f"{options.precision} is for format=onnx and openvino; got format={options.format}")
    suffix = SUFFIXES[options.format]
    if options.out and options.out.suffix not in ("", suffix):
        faults.add("out", f"format={options.format} makes a {suffix} file; got {str(options.out)!r}")
    for key in sorted({key for key, _ in pairs} & OF_CHECKPOINT.keys()):
        faults.add(key, OF_CHECKPOINT[key])
    faults.raise_if_any("the arguments")
    require_libraries(options)
    return options, pairs


def require_libraries(options: Options) -> None:
    """Whether all is installed that writes the file and runs it.

    Raises:
        ExportError: with what is missing, and how to install it.
    """
    needed = LIBRARIES[options.format]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        names = ", ".join(missing)
        raise ExportError(f"format={options.format} needs {names}: {INSTALL}")


def path_of_export(options: Options, detector_file: Path) -> Path:
    """Where the export goes: as ``out`` says, else beside the detector and named after it.

    Args:
        options: with ``out``, which may be a folder.
        detector_file: a run's folder, its detector file or a checkpoint.

    Raises:
        RecipeError: if that is the detector file itself.
    """
    folder = detector_file if detector_file.is_dir() else detector_file.parent
    stem = "model" if detector_file.is_dir() or detector_file.stem == "detector" else detector_file.stem
    name = f"{stem}{'' if options.precision == 'fp32' else f'_{options.precision}'}{SUFFIXES[options.format]}"
    out = folder / name if options.out is None else options.out
    out = out if out.suffix == SUFFIXES[options.format] else out / name
    if out.is_dir():
        raise RecipeError(f"out: {out} is a folder; name a file in it, or another place")
    return out
