"""Runs exported detectors with the library of their format. Torch is imported only for its own formats.

Each module handles one format: ``read_metadata(path)`` returns the metadata of the file, and ``open_program(path)`` a
function from a batch of images to the outputs, in the order of their names in the file. Both raise CheckpointError.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from detkit.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np

Program = Callable[["np.ndarray"], "list[np.ndarray]"]

MODULES = {
    ".onnx": "detkit.inference.runtimes.onnx_runtime",
    ".xml": "detkit.inference.runtimes.open_vino",
    ".pt2": "detkit.inference.runtimes.torch_program",
    ".torchscript": "detkit.inference.runtimes.torch_program",
}
ON_GPU = (".onnx",)  # formats that a GPU can run; the others run on the CPU
RUNS_CODE = (".pt2", ".torchscript")  # torch may run code from such a file when it opens it


def is_exported(path: Path) -> bool:
    """Whether a file is an exported detector, by its suffix."""
    return path.suffix in MODULES


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of the file; no code in it is run.

    Raises:
        CheckpointError: if the file cannot be read, or its library is not installed.
    """
    return importlib.import_module(MODULES[path.suffix]).read_metadata(path)


def require_harmless(path: Path) -> None:
    """Refuse a file that may run code when it is opened.

    Raises:
        CheckpointError: if torch may run code from the file.
    """
    if path.suffix in RUNS_CODE:
        raise CheckpointError(
            f"a {path.suffix} file may run code of its author when torch opens it; set trusted=torch if you trust "
            f"{path.name}. An ONNX or OpenVINO file or a detector file runs no code"
        )


def open_program(path: Path, device: str = "cpu", *, threads: int = 0, may_run_code: bool = False) -> Program:
    """A function from images, (B, 3, H, W) float32 or (B, H, W, 3) uint8 as the file requires, to its outputs.

    Args:
        path: of the file.
        device: torch's name of the device, used for the formats in ``ON_GPU``; images and outputs are on the CPU.
        threads: of the CPU; 0: the default of the library. The formats of torch use torch's own number.
        may_run_code: whether torch may open its own formats.

    Raises:
        CheckpointError: if the file cannot be read or may run code, its library is not installed, or it cannot use
            the device.
    """
    if not may_run_code:
        require_harmless(path)
    where = (device,) if path.suffix in ON_GPU else ()
    return importlib.import_module(MODULES[path.suffix]).open_program(path, *where, threads=threads)
