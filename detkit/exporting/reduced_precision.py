"""Changes of an ONNX graph to float16 or int8."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch

from detkit import __version__
from detkit.exporting.formats.artifact import Artifact, ExportSpec
from detkit.exporting.formats.half import to_half
from detkit.exporting.formats.suppression import DENSE_NAMES
from detkit.exporting.int8.quantize import quantize
from detkit.exporting.options import ExportOptions
from detkit.exporting.verify.certificate import ExportCheck
from detkit.exporting.verify.check_images import DataOverrides, batched, calibration_images
from detkit.inference.exported_detector import ExportedDecode, ExportedModel, program_input
from detkit.inference.predictor import Predictor
from detkit.inference.runtimes.forms import SUFFIXES
from detkit.inference.runtimes.signature import Signature
from detkit.inference.stored_detector import StoredDetector
from detkit.ops.strides import largest_stride_of
from detkit.types import YOLOPredictions

CALIBRATION_BATCH = 8


class GraphChange:
    """A function from graph to graph that keeps its input and output.

    Args:
        function: from the graph to the changed graph.

    Attributes:
        before: the graph before the change; None until the first call.
        after: the changed graph; None until the first call.
        about: entries for the certificate.
    """

    def __init__(self, function: Callable[[onnx.ModelProto], onnx.ModelProto]) -> None:
        self.function = function
        self.before: onnx.ModelProto | None = None
        self.after: onnx.ModelProto | None = None
        self.about: dict[str, object] = {}

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The changed graph."""
        self.before = model
        self.after = self.function(model)
        return self.after


class ToInt8(GraphChange):
    """Quantization to int8; layers return to float until the loss of AP is within the tolerance.

    Args:
        spec: of the export.
        images: (H, W, 3) uint8 RGB images that the ranges of activations are measured on.
        check: compares each quantized graph with the detector.
        tolerance: largest loss, in AP points.
    """

    def __init__(self, spec: ExportSpec, images: list[np.ndarray], check: ExportCheck, tolerance: float) -> None:
        super().__init__(self._quantized)
        self.spec = spec
        self.images = images
        self.check = check
        self.tolerance = tolerance

    def _quantized(self, model: onnx.ModelProto) -> onnx.ModelProto:
        size = 1 if self.spec.dynamic == "none" else CALIBRATION_BATCH
        batches = (program_input(batch, self.spec.takes_uint8) for batch in batched(self.images, size))
        runtime = "openvino" if self.spec.format == "openvino" else "onnxruntime"
        with self.check.steps.step("calibrate and check int8"):
            quantized = quantize(model, batches, self._is_good_enough, runtime=runtime)
        self.about = {"calibration_images": len(self.images), "left_in_float": list(quantized.in_float)}
        return quantized.model

    def _is_good_enough(self, model: onnx.ModelProto) -> bool:
        """Measure a quantized graph in its runtime; suppression, which is added later, is done by the decoder."""
        names = tuple(output.name for output in model.graph.output)
        spec, reference = self.spec, self.check.reference
        outputs = spec.outputs
        if names == DENSE_NAMES:
            outputs, names = "decoded", ("boxes", "scores")
        with torch.inference_mode():
            raw = reference.detector(torch.zeros(1, 3, *spec.image_hw))
        stride = largest_stride_of(reference.detector)
        coding = raw.box_coding if isinstance(raw, YOLOPredictions) else "distances"
        signature = Signature(outputs, names, spec.takes_uint8, spec.dynamic, spec.image_hw, stride, coding)
        with tempfile.TemporaryDirectory(prefix="detkit_int8_") as folder:
            path = Path(folder) / f"int8{SUFFIXES[spec.format]}"
            Artifact(spec.format, signature, model).write(path, {"detkit_version": __version__})
            decode = ExportedDecode(reference.decode, outputs)
            class_names, resize = reference.class_names, reference.resize
            candidate = Predictor(ExportedModel(str(path)), decode, class_names, spec.image_hw, resize)
            return self.check.measure("int8", candidate).lost_points <= self.tolerance


def change_for(
    options: ExportOptions, data_overrides: DataOverrides, stored: StoredDetector, spec: ExportSpec, check: ExportCheck
) -> GraphChange | None:
    """The change of the graph for ``precision``; None for fp32.

    Raises:
        ExportError: if int8 has no images to measure the ranges of activations on.
        DataError: if the data has no training split.
    """
    if options.precision == "fp16":
        return GraphChange(to_half)
    if options.precision == "int8":
        with check.steps.step("read calibration images"):
            images = calibration_images(stored, options, data_overrides)
        return ToInt8(spec, images, check, options.ap_tolerance)
    return None
