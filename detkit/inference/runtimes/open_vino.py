"""OpenVINO files, by OpenVINO on the CPU."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detkit.errors import CheckpointError
from detkit.inference.runtimes import Program
from detkit.inference.runtimes.forms import INSTALL

if TYPE_CHECKING:
    import openvino

INFO = "detkit"  # the section of the file's rt_info
WEIGHTS = "weights_sha256"  # key in it: digest of the .bin beside the .xml


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of the file."""
    return _metadata_of(_read(path))


def open_program(path: Path, precision: str = "f32", threads: int = 0) -> Program:
    """The compiled model as a function.

    Args:
        path: of the .xml.
        precision: "f32" or "bf16"; without it OpenVINO would use bfloat16 if the CPU supports it.
        threads: of the CPU; 0: the default of OpenVINO.

    Raises:
        CheckpointError: if the file cannot be read, its .bin is of another export, or OpenVINO is not installed.
    """
    model = _read(path)
    if _metadata_of(model).get(WEIGHTS) not in (None, json.dumps(digest_of_weights(path))):
        raise CheckpointError(f"{path}: {path.with_suffix('.bin').name} holds weights of another export; export again")
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
    }
    compiled = _core(path).compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()

    def run(batch: np.ndarray) -> list[np.ndarray]:
        request.infer([np.ascontiguousarray(batch)], share_inputs=True)
        return [request.get_output_tensor(number).data.copy() for number in range(len(compiled.outputs))]

    return run


def digest_of_weights(path: Path) -> str:
    """SHA-256 of the .bin beside an .xml."""
    with path.with_suffix(".bin").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _metadata_of(model: "openvino.Model") -> dict[str, str]:
    if not model.has_rt_info([INFO]):
        return {}
    return {key: str(value) for key, value in model.get_rt_info([INFO]).value.items()}


def _read(path: Path) -> "openvino.Model":
    core = _core(path)
    if not path.with_suffix(".bin").is_file():
        raise CheckpointError(f"{path}: has no {path.with_suffix('.bin').name} beside it, which holds its weights")
    try:
        return core.read_model(path)
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise CheckpointError(f"{path}: is no OpenVINO file that can be run: {said[:200]}") from error


def _core(path: Path) -> "openvino.Core":
    try:
        import openvino
    except ImportError as error:
        raise CheckpointError(f"{path}: needs OpenVINO: {INSTALL}") from error
    return openvino.Core()
