"""An export as a file: beside its place while it is checked, then there with its certificate."""

import contextlib
import copy
import hashlib
import importlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detkit import __version__
from detkit.checkpoint import storing
from detkit.checkpoint.file import replace
from detkit.errors import CheckpointError, ExportError
from detkit.export.formats.artifact import Artifact
from detkit.export.formats.writers import settle
from detkit.export.options import Options
from detkit.export.verify.certificate import compared, detect
from detkit.export.verify.comparison import Difference
from detkit.inference.exported_detector import ExportedModel
from detkit.inference.predictor import Predictor, load
from detkit.inference.stored_detector import StoredDetector

CERTIFICATE = ".certificate.json"  # ends the name of the file beside
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "torch_export": "torch", "torchscript": "torch"}
SAME_SCORE = 1e-3
OF_TRAINING = ("ap", "score", "monitor", "epoch", "step", "data_fingerprint", "detkit_version")  # at its own size


class Product(NamedTuple):
    """A file that is to be written.

    Args:
        out: its place.
        options: of the export.
        stored: the detector, with the recipe of the export.
    """

    out: Path
    options: Options
    stored: StoredDetector

    @property
    def runtime(self) -> str:
        """Which runs it, and its version, whichever package it was installed by."""
        name = RUNTIMES[self.options.format]
        version: str = importlib.import_module(name).__version__
        return f"{name} {version.partition('-')[0]}"  # OpenVINO's goes on with its build

    @property
    def megabytes(self) -> float:
        """Of the file, and of the weights beside an .xml."""
        files = [self.out, *([self.out.with_suffix(".bin")] if self.out.suffix == ".xml" else [])]
        return sum(file.stat().st_size for file in files) / 1e6

    @contextlib.contextmanager
    def on_trial(self, artifact: Artifact) -> Iterator[Predictor]:
        """The file in a folder beside its place, opened in its runtime; it goes away.

        Raises:
            StorageError: if it cannot be written.
            ExportError: if the runtime cannot run it.
        """
        with storing(self.out):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            folder = tempfile.TemporaryDirectory(dir=self.out.parent, prefix=f".{self.out.name}.")
        with folder as name:
            path = Path(name) / self.out.name
            self._write(artifact, path, None)
            yield self.opened(path)

    def put(self, artifact: Artifact, noted: Mapping[str, Any], trial: Predictor, images: Tensor) -> None:
        """The file in its place, its certificate in it and beside it; that of another file goes first.

        Args:
            artifact: that was on trial.
            noted: the certificate.
            trial: the file on trial; the one with the certificate is written beside it and opened before it is moved.
            images: (B, 3, H, W) in [0, 1], in which both find the same.

        Raises:
            StorageError: if it cannot be written.
            ExportError: if it finds something else now; what was in its place stays.
        """
        assert isinstance(trial.detector, ExportedModel)
        path = trial.detector.path.parent / "certified" / self.out.name
        self._write(artifact, path, noted)
        certified = copy.copy(trial)
        certified.detector = ExportedModel(str(path))
        certified.detector.may_run_code = True
        self._require_same(compared(detect(trial, images), detect(certified, images)))
        beside = self.out.with_name(f"{self.out.name}{CERTIFICATE}")
        with storing(self.out):
            beside.unlink(missing_ok=True)
            settle(path, self.out)
        with storing(beside):
            replace(beside, lambda file: file.write(f"{json.dumps(noted, indent=2)}\n".encode()))

    def _require_same(self, difference: Difference) -> None:
        if difference.unmatched or difference.largest_score > SAME_SCORE:
            raise ExportError(
                f"{self.out}: is not what was checked: scores differ by up to {difference.largest_score:.2g}, "
                f"{difference.unmatched} detections have no partner; export it again"
            )

    def opened(self, path: Path) -> Predictor:
        """The file in its runtime, after a first image.

        Raises:
            ExportError: if the runtime cannot run it.
        """
        try:
            exported = load(path, ("torch", *self.options.packages))
            detect(exported, torch.zeros(1, 3, *self.stored.image_hw))
        except (CheckpointError, RuntimeError) as error:
            said = " ".join(str(error).replace(f"{path.parent}/", "").split())[:300]  # that folder is gone by then
            raise ExportError(f"{self.runtime} cannot run the export: {said}") from error
        return exported

    def _write(self, artifact: Artifact, path: Path, certificate: Mapping[str, Any] | None) -> None:
        artifact.write(path, {**self.metadata(), "certificate": certificate})

    def metadata(self) -> dict[str, Any]:
        """What the detector file says, as it is for the export; what it says of its training is ``made_from``."""
        name, noted = self.stored.path.name if self.stored.path else "", self.stored.noted
        trained = {key: noted[key] for key in OF_TRAINING if key in noted}
        return {
            **{key: value for key, value in noted.items() if key not in trained},
            "recipe": self.stored.recipe,
            "class_names": list(self.stored.class_names),
            "image_hw": list(self.stored.image_hw),
            "detkit_version": __version__,
            "precision": self.options.precision,
            "made_from": {**trained, "name": name, "sha256": sha256_of(self.stored.weights)},
        }


def sha256_of(weights: Mapping[str, Tensor]) -> str:
    """Of names, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
