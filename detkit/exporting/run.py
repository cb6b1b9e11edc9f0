"""One export from start to end: convert, write, check beside the detector, certify."""

from typing import NamedTuple

import onnx
import torch
from rich.console import Console
from torch import Tensor

from detkit.errors import CheckpointError, ExportError, RecipeError, stride_fault
from detkit.exporting.exported_file import ExportedFile
from detkit.exporting.formats.artifact import ONNX_BASED, Artifact, ExportSpec, make_artifact
from detkit.exporting.formats.graph import BestDecode, DenseDecode, SuppressingDecode
from detkit.exporting.int8.layers_to_blame import layers_to_blame
from detkit.exporting.options import ExportOptions, path_of_export
from detkit.exporting.reduced_precision import GraphChange, change_for
from detkit.exporting.steps import TimedSteps
from detkit.exporting.verify.certificate import Certificate, ExportCheck, detect_batch
from detkit.exporting.verify.check_images import DataOverrides, images_for
from detkit.inference import runtimes
from detkit.inference.predictor import Predictor, predictor_of
from detkit.inference.runtimes.forms import Outputs
from detkit.inference.stored_detector import StoredDetector, read_stored
from detkit.ops.strides import largest_stride_of
from detkit.types import Detections


class Export(NamedTuple):
    """A prepared export.

    Args:
        options: of the command.
        data_overrides: of the recipe's data.
        reference: the detector that the exported file is compared with.
        spec: format, outputs and inputs.
        exported_file: that is to be written.
    """

    options: ExportOptions
    data_overrides: DataOverrides
    reference: Predictor
    spec: ExportSpec
    exported_file: ExportedFile

    def run(self, console: Console) -> Certificate:
        """Export, check and write the detector, and print the result.

        Raises:
            ExportError: if the detector cannot be exported in this form, its runtime cannot run the file, or the check
                fails. After a failed check the file is there, with a certificate that says so.
            DataError: if the data of the check cannot be used.
            StorageError: if the file cannot be written.
        """
        stored = self.exported_file.stored
        with TimedSteps() as steps, images_for(stored, self.options, self.data_overrides) as images:
            check = ExportCheck(self.reference, images, steps)
            change = change_for(self.options, self.data_overrides, stored, self.spec, check)
            return self.run_with(check, change, console)

    def run_with(self, check: ExportCheck, change: GraphChange | None, console: Console) -> Certificate:
        """As ``run``, with this check and this change of the ONNX graph, see ``make_artifact``."""
        with check.steps.step("convert"):
            artifact = make_artifact(self.reference.detector, self.reference.decode, self.spec, change)
        about = {"precision": self.options.precision, "runtime": self.exported_file.runtime}
        with self.exported_file.written_for_check(artifact) as (path, exported):
            certificate = check.certify(exported, self.options, {**about, **(change.about if change else {})})
            failure = ""
            if not certificate.passed:
                blamed = self._layers_to_blame(artifact, change, check.reference_run.sample)
                failure = f"{certificate.failure}; {blamed}"
            self.exported_file.certify(path, {**certificate.noted, "failed": failure})
        self._show(artifact, check.steps, console)
        certificate.show(console)
        if failure and not self.options.allow_difference:
            remedy = "The file is there, and its certificate says so; allow_difference=true accepts it"
            raise ExportError(f"{self.exported_file.out}: {failure}. {remedy}")
        return certificate

    def _layers_to_blame(self, artifact: Artifact, change: GraphChange | None, images: Tensor) -> str:
        if not isinstance(graph := artifact.program, onnx.ModelProto):
            return "format=onnx would name the layers to blame"
        graph = change.after if change and change.after else graph
        before = change.before if change and self.options.precision == "int8" else None
        return layers_to_blame(self.reference, self.spec, graph, before, images)

    def _show(self, artifact: Artifact, steps: TimedSteps, console: Console) -> None:
        (height, width), file = self.spec.image_hw, self.exported_file
        input_type = "uint8" if self.spec.takes_uint8 else "float32"
        seconds = ", ".join(f"{name} {seconds:.1f}" for name, seconds in steps.seconds.items())
        console.print(
            f"{file.out}: {file.megabytes:.1f} MB, {self.options.precision}, {width} x {height} {input_type} images to "
            f"{', '.join(artifact.signature.output_names)}, dynamic={self.spec.dynamic}",
            f"seconds: {seconds}\n",
            sep="\n",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )


def prepare(options: ExportOptions, data_overrides: DataOverrides = ()) -> Export:
    """Load the detector and decide the form of its export.

    Raises:
        CheckpointError: if the detector cannot be loaded, or is an exported file.
        RecipeError: if its decoder lacks a setting, or the image size does not fit its strides.
        ExportError: if the model is not a detector.
    """
    stored = read_stored(options.checkpoint)
    assert stored.path, "read_stored notes it"
    if runtimes.is_exported(stored.path):
        raise CheckpointError(f"{stored.path}: is exported already; give the detector file that it was made from")
    out = path_of_export(options, stored.path)
    stored = _as_exported(stored, options)
    reference = predictor_of(stored, options.trusted)
    if fault := stride_fault(stored.image_hw, largest_stride_of(reference.detector)):
        raise RecipeError(f"image_hw: {fault}")
    _require_detector(reference)
    outputs = options.outputs or _default_outputs(options, reference)
    spec = ExportSpec(options.format, outputs, options.input == "uint8", options.dynamic, stored.image_hw)
    return Export(options, data_overrides, reference, spec, ExportedFile(out, options, stored))


def _as_exported(stored: StoredDetector, options: ExportOptions) -> StoredDetector:
    """The detector with the decoder settings and the image size of the export."""
    image_hw = options.image_hw or stored.image_hw
    recipe = {**stored.recipe, "decode": {**stored.recipe["decode"], **options.decode_changes()}}
    if "image_hw" in recipe.get("data", {}):
        recipe["data"] = {**recipe["data"], "image_hw": list(image_hw)}
    return stored._replace(recipe=recipe, image_hw=image_hw)


def _require_detector(reference: Predictor) -> None:
    with torch.inference_mode():
        [found] = detect_batch(reference, torch.zeros(1, 3, *reference.image_hw))
    if not isinstance(found, Detections):
        raise ExportError(f"only detectors can be exported; this checkpoint gives {type(found).__name__}")


def _default_outputs(options: ExportOptions, reference: Predictor) -> Outputs:
    """The most complete outputs that the decoder and the format support."""
    if not isinstance(reference.decode, DenseDecode):
        return "raw"
    selects = isinstance(reference.decode, BestDecode)
    if options.format in ONNX_BASED:
        selects |= isinstance(reference.decode, SuppressingDecode)
    return "detections" if selects else "decoded"
