"""The exported file: written once, checked in a temporary folder, then moved to its place with its certificate."""

import contextlib
import hashlib
import importlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from detkit import __version__
from detkit.checkpoint import storage_errors
from detkit.checkpoint.file import replace
from detkit.errors import CheckpointError, ExportError
from detkit.exporting.formats.artifact import Artifact
from detkit.exporting.formats.writers import Metadata, add_metadata, move_into_place
from detkit.exporting.options import ExportOptions
from detkit.exporting.verify.certificate import detect_batch
from detkit.inference.predictor import Predictor, load
from detkit.inference.stored_detector import StoredDetector

CERTIFICATE_SUFFIX = ".certificate.json"
RUNTIME_PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "torch_export": "torch", "torchscript": "torch"}
# Metadata of the detector file that describes its training; in an export it lies under "made_from".
TRAINING_KEYS = ("ap", "score", "monitor", "epoch", "step", "data_fingerprint", "detkit_version")


class ExportedFile(NamedTuple):
    """Path and metadata of an exported file.

    Args:
        out: final path.
        options: of the export.
        stored: the detector, with the recipe of the export.
    """

    out: Path
    options: ExportOptions
    stored: StoredDetector

    @property
    def runtime(self) -> str:
        """Name and version of the package that runs the file."""
        name = RUNTIME_PACKAGES[self.options.format]
        version: str = importlib.import_module(name).__version__
        return f"{name} {version.partition('-')[0]}"  # OpenVINO appends its build number

    @property
    def megabytes(self) -> float:
        """Size of the file, with the .bin of an .xml."""
        files = [self.out, *([self.out.with_suffix(".bin")] if self.out.suffix == ".xml" else [])]
        return sum(file.stat().st_size for file in files) / 1e6

    @contextlib.contextmanager
    def written_for_check(self, artifact: Artifact) -> Iterator[tuple[Path, Predictor]]:
        """Write the file into a temporary folder in the target folder and open it in its runtime.

        Yields:
            The temporary path, to be passed to ``certify``, and the opened file.

        Raises:
            StorageError: if the file cannot be written.
            ExportError: if the runtime cannot run it.
        """
        with storage_errors(self.out):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            folder = tempfile.TemporaryDirectory(dir=self.out.parent, prefix=f".{self.out.name}.")
        with folder as name:
            path = Path(name) / self.out.name
            artifact.write(path, self.metadata())
            yield path, self._opened(path)

    def certify(self, written: Path, certificate: Metadata) -> None:
        """Add the certificate to the checked file, and move the file to its place, with the certificate beside it.

        Args:
            written: the temporary path.
            certificate: of this very file.

        Raises:
            StorageError: if a file cannot be written.
        """
        beside = self.out.with_name(f"{self.out.name}{CERTIFICATE_SUFFIX}")
        with storage_errors(self.out):
            add_metadata(written, {"certificate": certificate})
            beside.unlink(missing_ok=True)  # a certificate never lies beside another file than its own
            move_into_place(written, self.out)
        with storage_errors(beside):
            replace(beside, lambda file: file.write(f"{json.dumps(certificate, indent=2)}\n".encode()))

    def metadata(self) -> Metadata:
        """Metadata of the detector file for the export; what describes the training lies under ``made_from``."""
        name, noted = self.stored.path.name if self.stored.path else "", self.stored.noted
        training = {key: noted[key] for key in TRAINING_KEYS if key in noted}
        return {
            **{key: value for key, value in noted.items() if key not in training},
            "recipe": self.stored.recipe,
            "class_names": list(self.stored.class_names),
            "image_hw": list(self.stored.image_hw),
            "detkit_version": __version__,
            "precision": self.options.precision,
            "made_from": {**training, "name": name, "sha256": sha256_of(self.stored.weights)},
        }

    def _opened(self, path: Path) -> Predictor:
        """The file in its runtime, after it was run on one image."""
        try:
            exported = load(path, ("torch", *self.options.trusted))
            detect_batch(exported, torch.zeros(1, 3, *self.stored.image_hw))
        except (CheckpointError, RuntimeError) as error:
            reason = " ".join(str(error).replace(f"{path.parent}/", "").split())[:300]  # that folder will not exist
            raise ExportError(f"{self.runtime} cannot run the export: {reason}") from error
        return exported


def sha256_of(weights: Mapping[str, Tensor]) -> str:
    """Digest of names, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
