"""Detectors that are exported once for all tests."""

from pathlib import Path
from typing import NamedTuple

import onnx
import pytest
import torch
from torch import Tensor

import detkit
from detkit.exporting.exported_file import ExportedFile
from detkit.exporting.formats.artifact import Artifact, ExportSpec, make_artifact
from detkit.exporting.options import ExportOptions
from detkit.exporting.run import prepare
from detkit.inference.predictor import Predictor
from detkit.inference.runtimes.forms import SUFFIXES, Format
from tests.exporting import tiny


class Exported(NamedTuple):
    """A detector, and what became of it in one conversion."""

    reference: Predictor
    files: dict[str, Path]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="session")
def images() -> Tensor:
    """Four of noise, of whole grey levels."""
    noise = torch.randint(0, 256, (4, 3, *tiny.IMAGE_HW), generator=torch.Generator().manual_seed(1))
    return noise.float() / 255


@pytest.fixture(scope="session")
def yolo_file(folder: Path) -> Path:
    return tiny.write(folder / "yolo.safetensors", tiny.config_of(tiny.YOLO), tiny.decisive(tiny.YOLO))


@pytest.fixture(scope="session")
def plain_file(folder: Path) -> Path:
    """Of a class that is not detkit's."""
    return tiny.write(folder / "plain.safetensors", tiny.config_of(tiny.PLAIN), tiny.decisive(tiny.PLAIN))


@pytest.fixture(scope="session")
def rtdetr_file(folder: Path) -> Path:
    return tiny.write(folder / "rtdetr.safetensors", tiny.config_of(tiny.RTDETR), tiny.decisive(tiny.RTDETR))


@pytest.fixture(scope="session")
def data(folder: Path, plain_file: Path) -> Path:
    """A data set in which the plain detector is good."""
    tiny.write_truth(folder / "data", plain_file, (("train", 5), ("val", 7)))
    return folder / "data"


@pytest.fixture(scope="session")
def yolo(folder: Path, yolo_file: Path) -> Exported:
    """Detections and, from the same graph, decoded; both for ONNX Runtime and OpenVINO, of any size."""
    dense: list[onnx.ModelProto] = []

    def keep(model: onnx.ModelProto) -> onnx.ModelProto:
        dense.append(onnx.ModelProto())
        dense[0].CopyFrom(model)
        return model

    exported_file = exported_file_of(yolo_file)
    spec = ExportSpec("onnx", "detections", False, "size", tiny.IMAGE_HW)
    final = make_artifact(reference_of(yolo_file).detector, reference_of(yolo_file).decode, spec, keep)
    decoded = final.signature._replace(outputs="decoded", output_names=("boxes", "scores"))
    artifacts = {"detections": final, "decoded": Artifact("onnx", decoded, dense[0])}
    return Exported(reference_of(yolo_file), write_all(folder / "yolo", artifacts, exported_file, ("onnx", "openvino")))


@pytest.fixture(scope="session")
def yolo_raw(folder: Path, yolo_file: Path) -> Exported:
    """Raw outputs of bytes, one image at a time."""
    reference = reference_of(yolo_file)
    spec = ExportSpec("onnx", "raw", True, "none", tiny.IMAGE_HW)
    artifacts = {"raw": make_artifact(reference.detector, reference.decode, spec)}
    return Exported(reference, write_all(folder / "raw", artifacts, exported_file_of(yolo_file), ("onnx", "openvino")))


@pytest.fixture(scope="session")
def yolo_torch(folder: Path, yolo_file: Path) -> Exported:
    """Programs of torch."""
    reference, files = reference_of(yolo_file), {}
    for name in ("torch_export", "torchscript"):
        spec = ExportSpec(name, "decoded", False, "batch", tiny.IMAGE_HW)
        artifact = make_artifact(reference.detector, reference.decode, spec)
        files |= write_all(folder / "torch", {"decoded": artifact}, exported_file_of(yolo_file), (name,))
    return Exported(reference, files)


@pytest.fixture(scope="session")
def rtdetr(folder: Path, rtdetr_file: Path) -> Exported:
    """Detections of any number of images."""
    reference = reference_of(rtdetr_file)
    spec = ExportSpec("onnx", "detections", False, "batch", tiny.IMAGE_HW)
    artifacts = {"detections": make_artifact(reference.detector, reference.decode, spec)}
    return Exported(
        reference, write_all(folder / "detr", artifacts, exported_file_of(rtdetr_file), ("onnx", "openvino"))
    )


def reference_of(file: Path) -> Predictor:
    return detkit.load(file, ["tests"])


def exported_file_of(file: Path) -> ExportedFile:
    return prepare(ExportOptions(str(file), trusted=("tests",))).exported_file


def write_all(
    folder: Path, artifacts: dict[str, Artifact], exported_file: ExportedFile, formats: tuple[Format, ...]
) -> dict[str, Path]:
    """Files by format and outputs; ONNX and OpenVINO are written from one graph."""
    files = {}
    for outputs, artifact in artifacts.items():
        for name in formats:
            path = folder / f"{outputs}{SUFFIXES[name]}"
            artifact._replace(format=name).write(path, {**exported_file.metadata(), "certificate": None})
            files[f"{name} {outputs}"] = path
    return files
