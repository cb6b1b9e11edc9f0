"""torch.export programs and TorchScript, by torch itself, on the CPU."""

import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

from detkit.checkpoint import UNREADABLE, error_line
from detkit.errors import CheckpointError
from detkit.inference.runtimes import Program

INFO = "detkit.json"  # an extra file in the archive: a dictionary of texts
ADDED_INFO = "detkit_added.json"  # the same, for metadata that is added after the program was written


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of the file, read from the archive without opening the program."""
    import json

    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith((f"/{INFO}", f"/{ADDED_INFO}"))]
            return {key: text for name in names for key, text in json.loads(archive.read(name)).items()}
    except (OSError, zipfile.BadZipFile, *UNREADABLE) as error:
        raise CheckpointError(f"{path}: is no archive of torch: {error_line(error)}") from error


def open_program(path: Path, threads: int = 0) -> Program:  # noqa: ARG001  (torch has one number of threads for all)
    """The program as a function."""
    program = _load(path)

    def run(batch: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return [output.numpy() for output in program(torch.from_numpy(np.ascontiguousarray(batch)))]

    return run


def _load(path: Path) -> torch.nn.Module:
    try:
        if path.suffix == ".pt2":
            return torch.export.load(path).module()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about the deprecation of TorchScript
            return torch.jit.load(path, map_location="cpu").eval()
    except (OSError, zipfile.BadZipFile, *UNREADABLE) as error:
        raise CheckpointError(f"{path}: is no program of torch: {error_line(error)}") from error
