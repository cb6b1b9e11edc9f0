"""ONNX files, by ONNX Runtime: on the CPU, or on a GPU where its CUDA build is installed."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from detkit.errors import CheckpointError
from detkit.inference.runtimes import Program
from detkit.inference.runtimes.forms import INSTALL

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

LOG = logging.getLogger(__name__)
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
Provider = str | tuple[str, dict[str, int]]


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of the file."""
    return dict(_session(path, [CPU], threads=1, optimise=False).get_modelmeta().custom_metadata_map)


def open_program(path: Path, device: str = "cpu", threads: int = 0) -> Program:
    """A session as a function. It runs on the CPU, with a warning, if this build has no GPU support.

    Args:
        path: of the file.
        device: "cpu", "cuda" or "cuda:1", as torch names it; others run on the CPU.
        threads: of the CPU; 0: the default of ONNX Runtime.

    Raises:
        CheckpointError: if the file cannot be read, ONNX Runtime is not installed, or it cannot use the GPU.
    """
    kind, _, number = device.partition(":")
    wants_gpu = kind == "cuda"
    if wants_gpu and not has_cuda(path):
        LOG.warning(
            "%s: runs on the CPU, not on %s: this build of ONNX Runtime has no GPU support; install onnxruntime-gpu",
            path,
            device,
        )
        wants_gpu = False
    session = _session(path, [(CUDA, {"device_id": int(number or 0)}), CPU] if wants_gpu else [CPU], threads)
    if wants_gpu and CUDA not in session.get_providers():
        raise CheckpointError(
            f"{path}: ONNX Runtime cannot use {device}: the CUDA or cuDNN that it needs cannot be loaded; device=cpu "
            "runs it on the CPU"
        )
    [images] = session.get_inputs()

    def run(batch: np.ndarray) -> list[np.ndarray]:
        with _reading(path, f"fails on images of {batch.shape}"):
            outputs = session.run(None, {images.name: np.ascontiguousarray(batch)})
        return [np.asarray(output) for output in outputs]

    return run


def has_cuda(path: Path) -> bool:
    """Whether this build of ONNX Runtime supports CUDA; the path is for the error if it is not installed."""
    return CUDA in _library(path).get_available_providers()


def _library(path: Path) -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise CheckpointError(f"{path}: needs ONNX Runtime: {INSTALL}") from error
    return onnxruntime


def _session(
    path: Path, providers: Sequence[Provider], threads: int = 0, *, optimise: bool = True
) -> "InferenceSession":
    onnxruntime = _library(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads
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
