"""Exported detectors, run by the library that their format belongs to. Torch is imported for its own formats alone.

Each module knows one format: ``read_metadata(path)`` gives what the exporter noted in the file, ``open_program(path)``
a function from a batch of images to the outputs, in the order that the file names them. Both raise CheckpointError.
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
ON_GPU = (".onnx",)  # where a GPU can run them; the others run on the CPU
RUNS_CODE = (".pt2", ".torchscript")  # torch may run what such a file holds, when it is opened


def is_exported(path: Path) -> bool:
    """Whether a file is an exported detector, by its suffix."""
    return path.suffix in MODULES


def read_metadata(path: Path) -> dict[str, str]:
    """What the exporter noted in the file; nothing in it is run.

    Raises:
        CheckpointError: if the file cannot be read, or its library is not installed.
    """
    return importlib.import_module(MODULES[path.suffix]).read_metadata(path)


def require_harmless(path: Path) -> None:
    """Whether nothing in the file is run, when it is opened.

    Raises:
        CheckpointError: if torch may run it.
    """
    if path.suffix in RUNS_CODE:
        raise CheckpointError(
            f"a {path.suffix} file may run code of whoever made it when torch opens it; trusted=torch if you trust "
            f"{path.name}. An ONNX or OpenVINO file or a detector file runs none"
        )


def open_program(path: Path, device: str = "cpu", *, threads: int = 0, may_run_code: bool = False) -> Program:
    """(B, 3, H, W) float32 or (B, H, W, 3) uint8 images, as the file has it, to its outputs.

    Args:
        path: of the file.
        device: which runs it, as torch names it, if there can be more than one, see ``ON_GPU``; images and outputs are
            on the CPU.
        threads: of the CPU; 0: as many as the library takes by itself. The formats of torch take torch's own number.
        may_run_code: whether torch is trusted to open a program of its own.

    Raises:
        CheckpointError: if the file cannot be read or may run code, its library is not installed, or it cannot use
            the device.
    """
    if not may_run_code:
        require_harmless(path)
    where = (device,) if path.suffix in ON_GPU else ()
    return importlib.import_module(MODULES[path.suffix]).open_program(path, *where, threads=threads)
