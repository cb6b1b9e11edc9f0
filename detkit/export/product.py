"""An export as a file: beside its place while it is checked, then there with its certificate."""

import contextlib
import hashlib
import importlib.metadata
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
from detkit.export.artifact import Artifact
from detkit.export.certificate import compared, detect
from detkit.export.options import Options
from detkit.inference.predictor import Predictor, load
from detkit.inference.stored import StoredDetector

CERTIFICATE = ".certificate.json"  # ends the name of the file beside
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "torch_export": "torch", "torchscript": "torch"}
SAME_SCORE = 1e-3


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
        """Which runs it, and its version."""
        name = RUNTIMES[self.options.format]
        return f"{name} {importlib.metadata.version(name)}"

    @property
    def megabytes(self) -> float:
        """Of the file, and of the weights beside an .xml."""
        files = [self.out, *([self.out.with_suffix(".bin")] if self.out.suffix == ".xml" else [])]
        return sum(file.stat().st_size for file in files) / 1e6

    @contextlib.contextmanager
    def on_trial(self, artifact: Artifact) -> Iterator[Predictor]:
        """The file beside its place, opened in its runtime; it goes away.

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

    def put(self, artifact: Artifact, noted: Mapping[str, Any]) -> None:
        """The file in its place, its certificate in it and beside it; that of another file goes first.

        Raises:
            StorageError: if it cannot be written.
        """
        beside = self.out.with_name(f"{self.out.name}{CERTIFICATE}")
        with storing(beside):
            beside.unlink(missing_ok=True)
        self._write(artifact, self.out, noted)
        with storing(beside):
            replace(beside, lambda file: file.write(f"{json.dumps(noted, indent=2)}\n".encode()))

    def require_same(self, found: list[Any], images: Tensor) -> None:
        """Open the file again.

        Args:
            found: in these images, when the file was checked.
            images: (B, 3, H, W) in [0, 1].

        Raises:
            ExportError: if it finds something else now.
        """
        difference = compared(found, detect(self.opened(self.out), images))
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
        """All that the detector file says, as it is for the export."""
        name = self.stored.path.name if self.stored.path else ""
        return {
            **self.stored.noted,
            "recipe": self.stored.recipe,
            "class_names": list(self.stored.class_names),
            "image_hw": list(self.stored.image_hw),
            "detkit_version": __version__,
            "precision": self.options.precision,
            "made_from": {"name": name, "sha256": sha256_of(self.stored.weights)},
        }


def sha256_of(weights: Mapping[str, Tensor]) -> str:
    """Of names, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
