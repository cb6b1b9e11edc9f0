"""A detector in the form of its format, held in memory until it is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import torch
from torch import nn

from detkit.export.converter_logs import quiet
from detkit.export.formats.capture import capture
from detkit.export.formats.folding import folded
from detkit.export.formats.graph import ExportGraph, refuse
from detkit.export.formats.onnx_graph import to_onnx
from detkit.export.formats.suppression import DENSE_NAMES, with_suppression
from detkit.export.formats.writers import WRITERS, Metadata
from detkit.inference.runtimes.forms import Dynamic, Format, Outputs
from detkit.inference.runtimes.signature import Signature
from detkit.types import BoxCoding

ONNX_BASED: tuple[Format, ...] = ("onnx", "openvino")


class Form(NamedTuple):
    """How a detector is exported; what the words mean says ``Signature``."""

    format: Format = "onnx"
    outputs: Outputs = "decoded"
    takes_uint8: bool = False
    dynamic: Dynamic = "batch"
    image_hw: tuple[int, int] = (640, 640)


class Artifact(NamedTuple):
    """What is written, and what goes in and comes out of it."""

    format: Format
    signature: Signature
    content: Any  # an ONNX graph, a captured or a traced program

    def write(self, path: Path, metadata: Metadata) -> None:
        """Write it with its signature and this metadata.

        Raises:
            StorageError: if it cannot be written; what was there stays.
        """
        WRITERS[self.format](path, self.content, {**metadata, "signature": self.signature._asdict()})


def make_artifact(
    detector: nn.Module,
    decode: Any,
    form: Form,
    change: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None,
) -> Artifact:
    """Fold the detector, capture it and convert it.

    Args:
        detector: on the CPU; it stays as it is.
        decode: its decoder, with the thresholds that the program is to have.
        form: of the program.
        change: made to an ONNX graph before suppression is added to it, e.g. to fewer bits.

    Raises:
        ExportError: if the detector cannot be exported, or not in this form.
    """
    stride: int = getattr(detector, "largest_stride", 1)
    graph = ExportGraph(folded(detector), decode, form.outputs, form.takes_uint8)
    example = graph.example(form.image_hw, form.dynamic)
    with torch.no_grad():
        predictions = graph.detector(torch.zeros(1, 3, *form.image_hw))
        names = tuple(graph.named(example))
    needs_suppression = form.outputs == "detections" and "labels" not in names
    refuse(form.format, form.dynamic, needs_suppression=needs_suppression)
    content: Any = capture(graph, form.image_hw, form.dynamic, stride)
    if form.format in ONNX_BASED:
        content = to_onnx(content, DENSE_NAMES if needs_suppression else names)
        content = change(content) if change else content
        if needs_suppression:
            content = with_suppression(content, decode.score_threshold, decode.iou_threshold, decode.max_detections)
            names = tuple(output.name for output in content.graph.output)
    elif form.format == "torchscript":
        with quiet():  # that sizes become constants is what dynamic=batch says
            content = torch.jit.trace(graph, (example,))
    coding: BoxCoding = getattr(predictions, "box_coding", "distances")
    signature = Signature(form.outputs, names, form.takes_uint8, form.dynamic, form.image_hw, stride, coding)
    return Artifact(form.format, signature, content)
