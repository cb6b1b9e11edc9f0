"""ONNX files, by ONNX Runtime: on a GPU where its CUDA build is installed, else on the CPU."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detkit.errors import CheckpointError
from detkit.inference.runtimes import Program

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def read_metadata(path: Path) -> dict[str, str]:
    """What the exporter noted in the file."""
    return dict(_session(path, optimise=False).get_modelmeta().custom_metadata_map)


def open_program(path: Path) -> Program:
    """A session as a function."""
    session = _session(path)
    [images] = session.get_inputs()

    def run(batch: np.ndarray) -> list[np.ndarray]:
        with _reading(path):
            return session.run(None, {images.name: np.ascontiguousarray(batch)})

    return run


def _session(path: Path, *, optimise: bool = True) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise CheckpointError(f"{path}: needs ONNX Runtime: pip install 'detkit[export]'") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = [name for name in PROVIDERS if name in onnxruntime.get_available_providers()]
    with _reading(path):
        return onnxruntime.InferenceSession(path, options, providers=providers)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # type: ignore[attr-defined]  # no common base

    errors = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoModel)
    try:
        yield
    except (*errors, state.NoSuchFile, state.NotImplemented, state.RuntimeException, RuntimeError) as error:
        said = str(error).partition("\n")[0]
        raise CheckpointError(f"{path}: is no ONNX file that can be run: {said}") from error
