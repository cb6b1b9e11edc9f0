"""Fewer bits in an ONNX graph, as an option asks for them."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from detkit import __version__
from detkit.export.formats.artifact import Artifact, Form
from detkit.export.formats.half import to_half
from detkit.export.formats.suppression import DENSE_NAMES
from detkit.export.int8.quantize import quantize_within
from detkit.export.options import Options
from detkit.export.verify.certificate import Check
from detkit.export.verify.check_images import Pairs, batched, calibration_images
from detkit.inference.exported_detector import ExportedDecode, ExportedModel, as_taken
from detkit.inference.predictor import Predictor
from detkit.inference.runtimes.forms import SUFFIXES
from detkit.inference.runtimes.signature import Signature
from detkit.inference.stored_detector import StoredDetector
from detkit.types import BoxCoding

CALIBRATION_BATCH = 8


class Change:
    """A change of a graph, which remembers what it made of what.

    Args:
        make: a graph to another one.

    Attributes:
        before: the graph that was changed.
        after: what became of it.
        about: what is to be noted.
    """

    def __init__(self, make: Callable[[onnx.ModelProto], onnx.ModelProto]) -> None:
        self.make = make
        self.before: onnx.ModelProto | None = None
        self.after: onnx.ModelProto | None = None
        self.about: dict[str, Any] = {}

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The changed graph."""
        self.before = model
        self.after = self.make(model)
        return self.after


class ToInt8(Change):
    """Int8 by images of the training split; layers go back to float until no more AP is lost than the tolerance.

    Args:
        form: of the export.
        images: (H, W, 3) uint8 RGB, to learn the ranges of activations from.
        check: measures each round.
        tolerance: in AP points.
    """

    def __init__(self, form: Form, images: list[np.ndarray], check: Check, tolerance: float) -> None:
        super().__init__(self._quantized)
        self.form = form
        self.images = images
        self.check = check
        self.tolerance = tolerance

    def _quantized(self, model: onnx.ModelProto) -> onnx.ModelProto:
        size = 1 if self.form.dynamic == "none" else CALIBRATION_BATCH
        batches = (as_taken(batch, self.form.takes_uint8) for batch in batched(self.images, size))
        runtime = "openvino" if self.form.format == "openvino" else "onnxruntime"
        with self.check.steps.step("calibrate and check int8"):
            made = quantize_within(model, batches, self._is_good_enough, runtime=runtime)
        self.about = {"calibration_images": len(self.images), "left_in_float": list(made.in_float)}
        return made.model

    def _is_good_enough(self, model: onnx.ModelProto) -> bool:
        """In its runtime, without the suppression that comes later, which the decoder does here."""
        names = tuple(output.name for output in model.graph.output)
        form, reference = self.form, self.check.reference
        outputs = form.outputs
        if names == DENSE_NAMES:
            outputs, names = "decoded", ("boxes", "scores")
        with torch.inference_mode():
            raw = reference.detector(torch.zeros(1, 3, *form.image_hw))
        stride: Any = getattr(reference.detector, "largest_stride", 1)
        coding: BoxCoding = getattr(raw, "box_coding", "distances")
        signature = Signature(outputs, names, form.takes_uint8, form.dynamic, form.image_hw, stride, coding)
        with tempfile.TemporaryDirectory(prefix="detkit_int8_") as folder:
            path = Path(folder) / f"int8{SUFFIXES[form.format]}"
            Artifact(form.format, signature, model).write(path, {"detkit_version": __version__})
            decode = ExportedDecode(reference.decode, outputs)
            candidate = Predictor(
                ExportedModel(str(path)), decode, reference.class_names, form.image_hw, reference.resize
            )
            return self.check.measure("int8", candidate).lost_points <= self.tolerance


def change_for(options: Options, pairs: Pairs, stored: StoredDetector, form: Form, check: Check) -> Change | None:
    """What the options ask for; None: the graph stays as it is.

    Raises:
        ExportError: if there are no images to learn from.
        DataError: if there is no training split.
    """
    if options.precision == "fp16":
        return Change(to_half)
    if options.precision == "int8":
        with check.steps.step("read calibration images"):
            images = calibration_images(stored, options, pairs)
        return ToInt8(form, images, check, options.ap_tolerance)
    return None
