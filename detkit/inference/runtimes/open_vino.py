"""OpenVINO files, by OpenVINO on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from detkit.errors import CheckpointError
from detkit.inference.runtimes import Program

INFO = "detkit"  # the section of the file's rt_info


def read_metadata(path: Path) -> dict[str, str]:
    """What the exporter noted in the file."""
    model = _read(path)
    if not model.has_rt_info([INFO]):
        return {}
    return {key: str(value) for key, value in model.get_rt_info([INFO]).value.items()}


def open_program(path: Path, precision: str = "f32") -> Program:
    """The compiled model as a function, in float32: where it can, OpenVINO would compute in bfloat16, "bf16"."""
    compiled = _core().compile_model(_read(path), "CPU", settings(precision))
    request = compiled.create_infer_request()

    def run(batch: np.ndarray) -> list[np.ndarray]:
        request.infer([np.ascontiguousarray(batch)], share_inputs=True)
        return [request.get_output_tensor(number).data.copy() for number in range(len(compiled.outputs))]

    return run


def settings(precision: str = "f32") -> dict[str, Any]:
    """For one image at a time, soon."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }


def _read(path: Path) -> Any:
    core = _core(path)
    if not path.with_suffix(".bin").is_file():
        raise CheckpointError(f"{path}: has no {path.with_suffix('.bin').name} beside it, which holds its weights")
    try:
        return core.read_model(path)
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise CheckpointError(f"{path}: is no OpenVINO file that can be run: {said[:200]}") from error


def _core(path: Path | None = None) -> Any:
    try:
        import openvino
    except ImportError as error:
        raise CheckpointError(f'{path}: needs OpenVINO: in the clone, pip install -e ".[export]"') from error
    return openvino.Core()
