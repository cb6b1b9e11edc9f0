"""Exports from the detector file to the certificate, as the script makes them, or with a change of the graph."""

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from rich.console import Console

from detkit.exporting.options import ExportOptions
from detkit.exporting.reduced_precision import GraphChange
from detkit.exporting.run import Export, prepare
from detkit.exporting.steps import TimedSteps
from detkit.exporting.verify.certificate import Certificate, ExportCheck
from detkit.exporting.verify.check_images import images_for
from detkit.inference.predictor import Predictor


def silent() -> Console:
    return Console(file=io.StringIO(), width=200)


def options(file: Path, out: Path, **more: Any) -> ExportOptions:
    return ExportOptions(str(file), out=out, trusted=("tests",), batch_size=3, **more)


def exported(file: Path, out: Path, data: Path | None, **more: Any) -> tuple[Certificate, str]:
    console = silent()
    data_overrides = [("data.root", str(data))] if data else []
    certificate = prepare(options(file, out, **more), data_overrides).run(console)
    assert isinstance(console.file, io.StringIO)
    return certificate, console.file.getvalue()


def checked(export: Export, change: GraphChange | None, reference: Predictor | None = None) -> Certificate:
    """With this change of the graph, and beside this detector instead of its own."""
    with (
        TimedSteps() as steps,
        images_for(export.exported_file.stored, export.options, export.data_overrides) as images,
    ):
        return export.run_with(ExportCheck(reference or export.reference, images, steps), change, silent())


def noise_in(path: str) -> Any:
    """Its weights are off by as much as they are large."""

    def change(model: onnx.ModelProto) -> onnx.ModelProto:
        model = copy.deepcopy(model)
        [weight] = [tensor for tensor in model.graph.initializer if tensor.name == f"detector.{path}.weight"]
        values = numpy_helper.to_array(weight)
        noisy = values + np.random.default_rng(0).normal(0, values.std(), values.shape).astype(np.float32)
        weight.CopyFrom(numpy_helper.from_array(noisy, weight.name))
        return model

    return change
