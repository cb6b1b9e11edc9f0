"""Temporary exports of a detector for the runtimes of a benchmark."""

import functools
from collections.abc import Sequence
from pathlib import Path

import onnx

from detkit import __version__
from detkit.exporting.formats.artifact import Artifact, ExportSpec, make_artifact
from detkit.inference import read_stored
from detkit.inference.metadata import Notes
from detkit.inference.predictor import predictor_of
from detkit.inference.runtimes.forms import Format

FORMATS: dict[str, Format] = {".onnx": "onnx", ".xml": "openvino"}


def convert(
    checkpoint: Path,
    folder: Path,
    image_hw: tuple[int, int],
    trusted: Sequence[str],
    suffix: str,
    batch_sizes: Sequence[int],
) -> None:
    """Write the files of one format for images of one size, with decoded boxes.

    OpenVINO gets another file for single images, because a dynamic batch size makes it slower.

    Args:
        checkpoint: of the detector.
        folder: for the files, see ``converted_path``.
        image_hw: of the network's input.
        trusted: packages whose classes the recipe may name.
        suffix: of the format.
        batch_sizes: that will be measured.

    Raises:
        ExportError: if the detector cannot be exported.
    """
    graph, noted = _graph(checkpoint, image_hw, tuple(trusted))
    artifact = graph._replace(format=FORMATS[suffix])
    metadata = {**noted, "image_hw": list(image_hw), "detkit_version": __version__}
    kinds = {converted_path(folder, image_hw, batch_size, suffix): artifact for batch_size in batch_sizes}
    single = converted_path(folder, image_hw, 1, suffix)
    if single in kinds and single != converted_path(folder, image_hw, 2, suffix):
        signature = artifact.signature._replace(dynamic="none")
        assert isinstance(artifact.program, onnx.ModelProto), "converted to ONNX"
        kinds[single] = artifact._replace(program=_for_one_image(artifact.program), signature=signature)
    for path, kind in kinds.items():
        kind.write(path, metadata)


@functools.lru_cache(maxsize=1)
def _graph(checkpoint: Path, image_hw: tuple[int, int], trusted: Sequence[str]) -> tuple[Artifact, Notes]:
    """The ONNX graph that both formats are written from, and the notes of its detector."""
    stored = read_stored(checkpoint)
    predictor = predictor_of(stored, trusted)
    spec = ExportSpec("onnx", "decoded", dynamic="batch", image_hw=image_hw)
    return make_artifact(predictor.detector, predictor.decode, spec), dict(stored.noted)


def converted_path(folder: Path, image_hw: tuple[int, int], batch_size: int, suffix: str) -> Path:
    """The path of a file of ``convert`` for one batch size."""
    single = "_single" if suffix == ".xml" and batch_size == 1 else ""
    return folder / f"model_{image_hw[0]}x{image_hw[1]}{single}{suffix}"


def _for_one_image(model: onnx.ModelProto) -> onnx.ModelProto:
    single = onnx.ModelProto()
    single.CopyFrom(model)
    [images] = single.graph.input
    images.type.tensor_type.shape.dim[0].dim_value = 1
    return single
