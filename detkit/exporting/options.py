"""The options of ``detkit export``."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from detkit.errors import CheckpointError, ExportError, RecipeError
from detkit.inference.runtimes.forms import INSTALL, SUFFIXES, Dynamic, Format, Outputs
from detkit.recipe.faults import Faults
from detkit.recipe.options import Between

Precision = Literal["fp32", "fp16", "int8"]
SplitName = Literal["train", "val", "test"]
Share = Annotated[float, Between(0, 1)]
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


@dataclass(frozen=True)
class ExportOptions:
    """Which detector becomes which file, and how it is checked.

    Args:
        checkpoint: a run's folder or a detector file.
        format: format of the file; torch_export and torchscript are programs of torch.
        out: the file, or a folder for it; null: model.onnx beside the detector.
        outputs: raw of the network, decoded (boxes and scores of all places) or detections; null: detections where the
            format can suppress boxes, else decoded.
        input: float32 takes (B, 3, H, W) RGB in [0, 1], uint8 takes (B, H, W, 3).
        dynamic: sizes that may change from call to call; size means batch, height and width.
        image_hw: height and width in pixels; null: as trained.
        precision: precision of the network; int8 needs images for its ranges, see calibration.
        score_threshold: lowest score of a detection, written into the file; null: as in the recipe.
        iou_threshold: overlap from which the weaker of two boxes is dropped, written into the file; null: as in the
            recipe.
        max_detections: most detections of an image, written into the file; null: as in the recipe.
        tolerance: AP points that the file may differ from torch; null: 0.1, and 1.0 lost in int8.
        limit: images of the check; null: all of the split.
        calibration: images of the training split that give int8 its ranges.
        batch_size: images that go through the network together in the check.
        split: split of the data that the check uses.
        allow_difference: end with code 0 although the file differs by more than the tolerance.
        trusted: packages whose classes the checkpoint may name.
    """

    checkpoint: str = field(metadata={"example": "runs/NAME/TIME", "exists": CheckpointError})
    format: Format = "onnx"
    out: Path | None = None
    outputs: Outputs | None = None
    input: Literal["float32", "uint8"] = "float32"
    dynamic: Dynamic = "batch"
    image_hw: tuple[int, int] | None = None
    precision: Precision = "fp32"
    score_threshold: Share | None = None
    iou_threshold: Share | None = None
    max_detections: Annotated[int, Between(1)] | None = None
    tolerance: Annotated[float, Between(0, 100)] | None = None
    limit: Annotated[int, Between(1)] | None = None
    calibration: Annotated[int, Between(1)] = 128
    batch_size: Annotated[int, Between(1, 4096)] = 4
    split: SplitName = "val"
    allow_difference: bool = False
    trusted: tuple[str, ...] = ()

    @property
    def ap_tolerance(self) -> float:
        """In AP points, hundredths."""
        return TOLERANCES[self.precision] if self.tolerance is None else self.tolerance

    def decode_changes(self) -> dict[str, Any]:
        """Arguments of the decoder that differ from the recipe's."""
        changes = {
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "max_detections": self.max_detections,
        }
        return {name: value for name, value in changes.items() if value is not None}


def check_options(options: ExportOptions, pairs: Sequence[tuple[str, Any]]) -> None:
    """Compare the options with each other, with the keys of the data and with what is installed.

    Raises:
        RecipeError: with everything that does not fit together.
        ExportError: if the libraries of the format are not installed.
    """
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


def require_libraries(options: ExportOptions) -> None:
    """Whether all is installed that writes the file and runs it.

    Raises:
        ExportError: with what is missing, and how to install it.
    """
    needed = LIBRARIES[options.format]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        names = ", ".join(missing)
        raise ExportError(f"format={options.format} needs {names}: {INSTALL}")


def path_of_export(options: ExportOptions, detector_file: Path) -> Path:
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
