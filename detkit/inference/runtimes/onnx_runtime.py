"""ONNX files, by ONNX Runtime: on the CPU, or on a GPU where its CUDA build is installed."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detkit.errors import CheckpointError
from detkit.inference.forms import INSTALL
from detkit.inference.runtimes import Program

LOG = logging.getLogger(__name__)
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def read_metadata(path: Path) -> dict[str, str]:
    """What the exporter noted in the file."""
    return dict(_session(path, [CPU], optimise=False).get_modelmeta().custom_metadata_map)


def open_program(path: Path, device: torch.device) -> Program:
    """A session as a function; with a warning on the CPU where the build has no GPU in it."""
    wants_gpu = device.type == "cuda"
    if wants_gpu and not has_cuda(path):
        LOG.warning(
            "%s: runs on the processor, not on %s: this build of ONNX Runtime has no GPU in it; onnxruntime-gpu has",
            path,
            device,
        )
        wants_gpu = False
    session = _session(path, [(CUDA, {"device_id": device.index or 0}), CPU] if wants_gpu else [CPU])
    if wants_gpu and CUDA not in session.get_providers():
        raise CheckpointError(
            f"{path}: ONNX Runtime cannot use {device}: the CUDA or cuDNN that it needs cannot be loaded; device=cpu "
            "runs it on the processor"
        )
    [images] = session.get_inputs()

    def run(batch: np.ndarray) -> list[np.ndarray]:
        with _reading(path, f"fails on images of {batch.shape}"):
            return session.run(None, {images.name: np.ascontiguousarray(batch)})

    return run


def has_cuda(path: Path) -> bool:
    """Whether this build of ONNX Runtime was made for GPUs; the path is for the error if there is none."""
    return CUDA in _library(path).get_available_providers()


def _library(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise CheckpointError(f"{path}: needs ONNX Runtime: {INSTALL}") from error
    return onnxruntime


def _session(path: Path, providers: Sequence[Any], *, optimise: bool = True) -> Any:
    onnxruntime = _library(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with _reading(path):
        return onnxruntime.InferenceSession(path, options, providers=providers)


@contextlib.contextmanager
def _reading(path: Path, what: str = "is no ONNX file that can be run") -> Iterator[None]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # type: ignore[attr-defined]  # no common base

    errors = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoModel)
    try:
        yield
    except (*errors, state.NoSuchFile, state.NotImplemented, state.RuntimeException, RuntimeError) as error:
        said = str(error).partition("\n")[0]
        raise CheckpointError(f"{path}: {what}: {said}") from error
