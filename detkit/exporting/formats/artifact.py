"""From a detector to the program of an export format, in memory."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import onnx
import torch
from torch import nn

from detkit.exporting.converter_logs import silenced
from detkit.exporting.formats.capture import capture
from detkit.exporting.formats.folding import folded
from detkit.exporting.formats.graph import Decode, ExportGraph, SuppressingDecode, require_supported
from detkit.exporting.formats.onnx_graph import to_onnx
from detkit.exporting.formats.suppression import DENSE_NAMES, with_suppression
from detkit.exporting.formats.writers import WRITERS, Metadata, Program
from detkit.inference.runtimes.forms import Dynamic, Format, Outputs
from detkit.inference.runtimes.signature import Signature
from detkit.ops.strides import largest_stride_of
from detkit.types import YOLOPredictions

ONNX_BASED: tuple[Format, ...] = ("onnx", "openvino")


class ExportSpec(NamedTuple):
    """Format, outputs and inputs of an export; ``Signature`` explains the values."""

    format: Format = "onnx"
    outputs: Outputs = "decoded"
    takes_uint8: bool = False
    dynamic: Dynamic = "batch"
    image_hw: tuple[int, int] = (640, 640)


class Artifact(NamedTuple):
    """A program of an export format with its inputs and outputs."""

    format: Format
    signature: Signature
    program: Program

    def write(self, path: Path, metadata: Metadata) -> None:
        """Write the program with its signature and this metadata.

        Raises:
            StorageError: if the file cannot be written; an existing file stays unchanged.
        """
        WRITERS[self.format](path, self.program, {**metadata, "signature": self.signature._asdict()})


def make_artifact(
    detector: nn.Module,
    decode: Decode,
    spec: ExportSpec,
    change: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None,
) -> Artifact:
    """Fold, capture and convert a detector.

    Args:
        detector: on the CPU; it is not changed.
        decode: its decoder, with the thresholds that the program is to use.
        spec: of the export.
        change: applied to an ONNX graph before suppression is added, e.g. a reduction of precision.

    Raises:
        ExportError: if the detector cannot be exported in this form.
    """
    stride = largest_stride_of(detector)
    graph = ExportGraph(folded(detector), decode, spec.outputs, spec.takes_uint8)
    example = graph.example(spec.image_hw, spec.dynamic)
    with torch.no_grad():
        predictions = graph.detector(torch.zeros(1, 3, *spec.image_hw))
        names = tuple(graph.named(example))
    needs_suppression = spec.outputs == "detections" and "labels" not in names
    require_supported(spec.format, spec.dynamic, needs_suppression=needs_suppression)
    program: Program = capture(graph, spec.image_hw, spec.dynamic, stride)
    if spec.format in ONNX_BASED:
        program = to_onnx(program, DENSE_NAMES if needs_suppression else names)
        program = change(program) if change else program
        if needs_suppression:
            assert isinstance(decode, SuppressingDecode), "checked by ExportGraph"
            program = with_suppression(program, decode.score_threshold, decode.iou_threshold, decode.max_detections)
            names = tuple(output.name for output in program.graph.output)
    elif spec.format == "torchscript":
        with silenced():  # tracing warns that sizes become constants, which dynamic=batch states
            program = torch.jit.trace_module(graph, {"forward": (example,)})
    coding = predictions.box_coding if isinstance(predictions, YOLOPredictions) else "distances"
    signature = Signature(spec.outputs, names, spec.takes_uint8, spec.dynamic, spec.image_hw, stride, coding)
    return Artifact(spec.format, signature, program)
