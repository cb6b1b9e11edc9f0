"""Exported detectors with the interface of the detectors that they were made from."""

import logging
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn

from detkit.errors import CheckpointError, stride_fault
from detkit.inference import runtimes
from detkit.inference.decoder import Decode, Predictions, SelectsDense, lowest_score, with_threshold
from detkit.inference.device import instruction_set
from detkit.inference.metadata import Notes
from detkit.inference.runtimes.forms import Outputs
from detkit.inference.runtimes.signature import read_notes, signature_of
from detkit.recipe.plan import is_node
from detkit.types import DenseDetections, Detections, DETRPredictions, QueryOutput, YOLOPredictions

LOG = logging.getLogger(__name__)
UNBATCHED = ("points", "strides")  # outputs that are the same for every image


class ExportedModel(nn.Module):
    """An exported file as a module: from images to predictions, run by the runtime of its format.

    Args:
        path: of the file.

    Attributes:
        may_run_code: whether torch may open its own formats. It is not an argument, because a recipe from an untrusted
            file may name this class and any path.

    Raises:
        CheckpointError: if the file was not exported by detkit, is damaged, or its library is not installed.
    """

    _device_marker: Tensor

    def __init__(self, path: str) -> None:
        super().__init__()
        self.may_run_code = False
        self.path = Path(path)
        self.signature = signature_of(self.path, read_notes(self.path))
        self.takes_uint8 = self.signature.takes_uint8
        self.largest_stride = self.signature.largest_stride
        self.register_buffer("_device_marker", torch.empty(0), persistent=False)  # moved by ``to``
        self._programs: dict[torch.device, runtimes.Program] = {}

    @property
    def program(self) -> runtimes.Program:
        """The opened file; it is opened at the first use on each device."""
        device = self._device_marker.device
        if device not in self._programs:
            self._programs[device] = self._open(device)
        return self._programs[device]

    def _open(self, device: torch.device) -> runtimes.Program:
        return runtimes.open_program(
            self.path, str(device), threads=torch.get_num_threads(), may_run_code=self.may_run_code
        )

    def forward(self, images: Tensor) -> Predictions:
        """(B, 3, H, W) RGB images, uint8 or in [0, 1], to the input of ``ExportedDecode``, on the CPU.

        Raises:
            ValueError: if the program does not take this size.
        """
        image_hw = (images.shape[-2], images.shape[-1])
        self._require_fitting(*image_hw)
        return self._predictions(self._run(program_input(images, self.takes_uint8)), image_hw)

    def _require_fitting(self, height: int, width: int) -> None:
        if self.signature.dynamic == "size":
            if fault := stride_fault((height, width), self.largest_stride):
                raise ValueError(f"{self.path}: both sides of images {fault}")
        elif (height, width) != self.signature.image_hw:
            size = " x ".join(map(str, self.signature.image_hw))
            remedy = f"An export with dynamic=size takes all multiples of {self.largest_stride}"
            raise ValueError(f"{self.path}: takes images of {size} pixels alone; got {height} x {width}. {remedy}")

    def _run(self, images: np.ndarray) -> dict[str, Tensor]:
        batches = [images] if self.signature.dynamic != "none" else np.split(images, len(images))
        runs = [list(map(torch.from_numpy, self.program(batch))) for batch in batches]
        return {
            name: values[0] if name in UNBATCHED or len(values) == 1 else torch.cat(values)
            for name, *values in zip(self.signature.output_names, *runs, strict=True)
        }

    def _predictions(self, found: dict[str, Tensor], image_hw: tuple[int, int]) -> Predictions:
        boxes = found["boxes"]
        if self.signature.outputs == "decoded":
            return DenseDetections(boxes, found["scores"])
        if self.signature.outputs == "detections":
            of_images = zip(boxes, found["scores"], found["labels"], found["counts"].tolist(), strict=True)
            return [Detections(box[:count], score[:count], label[:count]) for box, score, label, count in of_images]
        if "points" not in found:
            answer = QueryOutput(found["logits"], boxes)
            return DETRPredictions([answer], answer, None, image_hw)
        points, strides, box_coding = found["points"], found["strides"], self.signature.box_coding
        return YOLOPredictions(found["logits"], boxes, found.get("objectness"), points, strides, box_coding)


def program_input(images: Tensor, takes_uint8: bool) -> np.ndarray:
    """Images in the form that the program takes; from [0, 1] to the bytes of the image or the reverse.

    Args:
        images: (B, 3, H, W) RGB, uint8 or in [0, 1].
        takes_uint8: see ``Signature``.
    """
    is_uint8 = images.dtype == torch.uint8
    if takes_uint8:
        pixels = images if is_uint8 else (images.float() * 255).round().to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).cpu().numpy()
    return (images.float().div_(255) if is_uint8 else images.float()).cpu().numpy()


class ExportedDecode:
    """The remaining steps of a decoder after those that the program contains.

    Args:
        decode: of the detector.
        outputs: of the program.

    Raises:
        ValueError: if the kind of outputs is unknown.
    """

    def __init__(self, decode: Decode, outputs: Outputs) -> None:
        if outputs not in get_args(Outputs):
            raise ValueError(f"outputs must be {', '.join(get_args(Outputs))}; got {outputs!r}")
        self.decode = decode
        self.outputs: Outputs = outputs
        self.score_threshold = lowest_score(decode)

    def with_threshold(self, score_threshold: float) -> "ExportedDecode":
        """A copy with another lowest score, if the decoder supports that."""
        return ExportedDecode(with_threshold(self.decode, score_threshold), self.outputs)

    def __call__(self, predictions: Predictions, /) -> list[Detections]:
        """Detections of each image.

        Raises:
            CheckpointError: if the program gives decoded outputs and the decoder has no ``select``.
        """
        if self.outputs == "raw":
            return self.decode(predictions)
        if self.outputs == "detections":
            return [self._best(found) for found in predictions]
        if not isinstance(self.decode, SelectsDense):
            name = type(self.decode).__name__
            raise CheckpointError(f"outputs=decoded: {name} has no select; export with outputs=raw")
        return self.decode.select(predictions)

    def _best(self, found: Detections) -> Detections:
        kept = found.scores >= self.score_threshold
        return Detections(*(values[kept] for values in found))


def metadata_of_export(path: Path) -> Notes:
    """The metadata of an export in the form of a detector file, with the exported program as the model.

    Raises:
        CheckpointError: if the file was not exported by detkit, is damaged, or its library is not installed.
    """
    metadata = read_notes(path)
    signature, recipe = signature_of(path, metadata), metadata.get("recipe")
    if not isinstance(recipe, dict) or not is_node(recipe.get("decode")):
        raise CheckpointError(f"{path}: has no recipe inside that names a decode")
    certificate = metadata.get("certificate")
    if isinstance(certificate, dict):
        _warn(path, certificate)
    model = {"_target_": "detkit.inference.exported_detector.ExportedModel", "path": str(path)}
    decode = {"_target_": "detkit.inference.exported_detector.ExportedDecode", "outputs": signature.outputs}
    return {**metadata, "recipe": {**recipe, "model": model, "decode": {**decode, "decode": recipe.get("decode")}}}


def _warn(path: Path, certificate: Notes) -> None:
    if certificate.get("failed"):
        LOG.warning(
            "%s: by its certificate it differs from the detector that it was made from: %s", path, certificate["failed"]
        )
    checked, here = certificate.get("instruction_set"), instruction_set()
    if certificate.get("precision") == "int8" and checked != here:
        with_7_bits = "the results differ by rounding only, which may move single boxes; detkit evaluate measures it"
        with_8_bits = "its weights of 8 bits give other boxes on CPUs without VNNI; export it again"
        LOG.warning(
            "%s: its int8 was checked on a CPU with %s, and this CPU has %s: %s",
            path,
            checked or "unknown instructions",
            here,
            with_7_bits if checked else with_8_bits,
        )
