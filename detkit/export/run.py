"""A trained detector to a file that another runtime runs, and the proof that it is the same detector."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from detkit.errors import CheckpointError, ExportError, RecipeError
from detkit.export.exported_file import Product
from detkit.export.formats.artifact import ONNX_BASED, Artifact, Form, make_artifact
from detkit.export.int8.layers_to_blame import culprits
from detkit.export.options import Options, path_of_export
from detkit.export.reduced_precision import Change, change_for
from detkit.export.steps import Steps
from detkit.export.verify.certificate import Certificate, Check, detect
from detkit.export.verify.check_images import Pairs, images_for
from detkit.inference import runtimes
from detkit.inference.predictor import Predictor, predictor_of
from detkit.inference.runtimes.forms import Outputs
from detkit.inference.stored_detector import StoredDetector, read_stored


class Export(NamedTuple):
    """All that is needed for an export, found right."""

    options: Options
    pairs: Pairs  # of the recipe's data
    reference: Predictor
    form: Form
    product: Product

    def run(self, console: Console) -> Certificate:
        """Export, check, write, and tell what came out.

        Raises:
            ExportError: if the detector cannot be exported in this form, its runtime cannot run the file, or the file
                is not the same detector: then it is there all the same, with a certificate that says so.
            DataError: if the data of the check cannot be used.
            StorageError: if the file cannot be written.
        """
        stored = self.product.stored
        with Steps() as steps, images_for(stored, self.options, self.pairs) as images:
            check = Check(self.reference, images, steps)
            return self.proven(check, change_for(self.options, self.pairs, stored, self.form, check), console)

    def proven(self, check: Check, change: Change | None, console: Console) -> Certificate:
        """The same with images and a change of the graph, see ``make_artifact``."""
        with check.steps.step("convert"):
            artifact = make_artifact(self.reference.detector, self.reference.decode, self.form, change)
        about = {"precision": self.options.precision, "runtime": self.product.runtime}
        with self.product.on_trial(artifact) as exported:
            certificate = check.certify(exported, self.options, {**about, **(change.about if change else {})})
            said = "" if certificate.passed else self._said(certificate, artifact, change, check.seen.sample)
            self.product.put(artifact, {**certificate.noted, "failed": said}, exported, check.seen.sample)
        self._show(artifact, check.steps, console)
        certificate.show(console)
        if said and not self.options.allow_difference:
            remedy = "The file is there, and its certificate says so; allow_difference=true takes it as it is"
            raise ExportError(f"{self.product.out}: {said}. {remedy}")
        return certificate

    def _said(self, certificate: Certificate, artifact: Artifact, change: Change | None, images: Tensor) -> str:
        if self.form.format not in ONNX_BASED:
            return f"{certificate.failure}; format=onnx would name the layers to blame"
        graph = change.after if change and change.after else artifact.content
        before = change.before if change and self.options.precision == "int8" else None
        return f"{certificate.failure}; {culprits(self.reference, self.form, graph, before, images)}"

    def _show(self, artifact: Artifact, steps: Steps, console: Console) -> None:
        (height, width), form = self.form.image_hw, self.form
        takes = "uint8" if form.takes_uint8 else "float32"
        seconds = ", ".join(f"{name} {seconds:.1f}" for name, seconds in steps.seconds.items())
        console.print(
            f"{self.product.out}: {self.product.megabytes:.1f} MB, {self.options.precision}, {width} x {height} "
            f"{takes} images to {', '.join(artifact.signature.output_names)}, dynamic={form.dynamic}",
            f"seconds: {seconds}\n",
            sep="\n",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )


def prepare(options: Options, pairs: Sequence[tuple[str, Any]] = ()) -> Export:
    """Find the detector and settle the form of its export.

    Raises:
        CheckpointError: if the detector cannot be loaded, or is exported already.
        RecipeError: if its decoder has no such setting, or the size does not fit it.
        ExportError: if it is no detector.
    """
    stored = read_stored(options.checkpoint)
    assert stored.path, "read_stored notes it"
    if runtimes.is_exported(stored.path):
        raise CheckpointError(f"{stored.path}: is exported already; give the detector file that it was made from")
    out = path_of_export(options, stored.path)
    stored = _as_exported(stored, options)
    reference = predictor_of(stored, options.packages)
    _require_fitting(stored.image_hw, getattr(reference.detector, "largest_stride", 1))
    _require_detector(reference)
    outputs = options.outputs or _best_outputs(options, reference.decode)
    form = Form(options.format, outputs, options.input == "uint8", options.dynamic, stored.image_hw)
    return Export(options, pairs, reference, form, Product(out, options, stored))


def _as_exported(stored: StoredDetector, options: Options) -> StoredDetector:
    """With the decoder and the size of the export."""
    image_hw = options.image_hw or stored.image_hw
    recipe = {**stored.recipe, "decode": {**stored.recipe["decode"], **options.decode_changes()}}
    if "image_hw" in recipe.get("data", {}):
        recipe["data"] = {**recipe["data"], "image_hw": list(image_hw)}
    return stored._replace(recipe=recipe, image_hw=image_hw)


def _require_fitting(image_hw: tuple[int, int], stride: Any) -> None:
    if any(side < stride or side % stride for side in image_hw):
        nearest = [max(1, round(side / stride)) * stride for side in image_hw]
        raise RecipeError(
            f"image_hw must be multiples of {stride}, the model's largest stride; got {list(image_hw)}, near it is "
            f"{nearest}"
        )


def _require_detector(reference: Predictor) -> None:
    """A classifier's decoder has no boxes."""
    with torch.inference_mode():
        found = detect(reference, torch.zeros(1, 3, *reference.image_hw))
    if not hasattr(found[0], "boxes"):
        raise ExportError(f"only detectors can be exported; this checkpoint gives {type(found[0]).__name__}")


def _best_outputs(options: Options, decode: Any) -> Outputs:
    """As far as the format goes."""
    if not hasattr(decode, "dense"):
        return "raw"
    return "detections" if options.format in ONNX_BASED or hasattr(decode, "best") else "decoded"
