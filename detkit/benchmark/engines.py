"""The runtimes that a benchmark measures, and what each needs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from detkit.benchmark.machine import is_installed
from detkit.inference import Predictor, load
from detkit.inference.exported_detector import ExportedModel
from detkit.inference.runtimes import ON_GPU, Program, is_exported, onnx_runtime, open_vino


class Bfloat16(nn.Module):
    """A detector under bfloat16 autocast."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Any:  # predictions of any detector
        """The predictions of the detector."""
        with torch.autocast(images.device.type, torch.bfloat16):
            return self.detector(images)


class OpenVinoBfloat16(ExportedModel):
    """An OpenVINO file that is run in bfloat16."""

    def _open(self, device: torch.device) -> Program:  # noqa: ARG002  (OpenVINO has the CPU alone)
        return open_vino.open_program(self.path, "bf16", torch.get_num_threads())


def _channels_last(detector: nn.Module) -> nn.Module:
    return detector.to(memory_format=torch.channels_last)


def _compiled(detector: nn.Module) -> nn.Module:
    compiled = torch.compile(detector)
    assert isinstance(compiled, nn.Module), "a compiled module is a module"
    return compiled


def _unchanged(detector: nn.Module) -> nn.Module:
    return detector


def _openvino_bfloat16(detector: nn.Module) -> nn.Module:
    assert isinstance(detector, ExportedModel), "the runtime opens .xml files"
    return OpenVinoBfloat16(str(detector.path))


class Runtime(NamedTuple):
    """A way to run a detector."""

    title: str
    adapt: Callable[[nn.Module], nn.Module] = _unchanged  # applied to the loaded detector
    suffix: str = ""  # of the exported file that it opens; "" means the detector file
    needs: str = ""  # required module besides torch
    is_bf16: bool = False


RUNTIMES = {
    "eager": Runtime("torch eager"),
    "compile": Runtime("torch compile", _compiled),
    "channels_last": Runtime("torch channels_last", _channels_last),
    "bf16": Runtime("torch bf16 channels_last", Bfloat16, is_bf16=True),
    "onnx": Runtime("ONNX Runtime", suffix=".onnx", needs="onnxruntime"),
    "openvino": Runtime("OpenVINO", suffix=".xml", needs="openvino"),
    "openvino_bf16": Runtime("OpenVINO bf16", _openvino_bfloat16, suffix=".xml", needs="openvino", is_bf16=True),
}
EXPORTED = Runtime("")  # of an exported file that the user named


def missing_package(runtime: Runtime) -> str:
    """A package that the runtime needs and that is not installed; empty if there is none."""
    needed = [runtime.needs, "onnx", "onnxscript"] if runtime.suffix else []
    return next((name for name in needed if not is_installed(name)), "")


def open_predictor(runtime: Runtime, path: Path, device: str, trusted: list[str]) -> Predictor:
    """Load a detector file for a runtime."""
    predictor = load(path, trusted)
    if isinstance(predictor.detector, ExportedModel):
        predictor.detector.to(device)  # the predictor stays on the CPU, where the library takes its images
    else:
        predictor.to(device)
    predictor.detector = runtime.adapt(predictor.detector)
    return predictor


def why_unavailable(runtime: Runtime, path: Path, device: torch.device) -> str:
    """Why this machine cannot run a file in a runtime; empty if no reason is known."""
    if device.type != "cpu" and is_exported(path):
        return _not_on_gpu(path, device)
    if device.type != "cpu" or not runtime.is_bf16:
        return ""
    if runtime.suffix == ".xml":
        import openvino

        can = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    else:
        from detkit.training.run.autocast import supported_precision

        can = supported_precision({"precision": "bf16-mixed", "accelerator": "cpu"}) == "bf16-mixed"
    return "" if can else "this processor has no instructions for bfloat16"


def _not_on_gpu(path: Path, device: torch.device) -> str:
    if path.suffix not in ON_GPU or device.type != "cuda":
        return f"{path.suffix} files do not run on {device.type}; device=cpu measures them"
    return (
        "" if onnx_runtime.has_cuda(path) else "this build of ONNX Runtime has no GPU support; install onnxruntime-gpu"
    )


def file_mb(path: Path) -> float:
    """Size of a model's file in MB (10^6 bytes), with the .bin of an .xml."""
    files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    return sum(file.stat().st_size for file in files) / 1e6
