"""The files that other runtimes open, made from a detector for the time of a benchmark."""

from pathlib import Path

import onnx

from detkit import __version__
from detkit.export.artifact import Form, make_artifact
from detkit.inference import load, read_stored


def convert(checkpoint: Path, folder: Path, image_hw: tuple[int, int], trusted: list[str]) -> None:
    """An ONNX and two OpenVINO files from one graph of this size, with decoded boxes.

    One of OpenVINO's is for single images: a batch that may vary cost it a tenth of its speed, ONNX Runtime nothing.

    Raises:
        ExportError: if the detector cannot be exported.
    """
    predictor, stored = load(checkpoint, trusted), read_stored(checkpoint)
    form = Form("onnx", "decoded", dynamic="batch", image_hw=image_hw)
    artifact = make_artifact(predictor.detector, predictor.decode, form)
    metadata = {**stored.noted, "image_hw": list(image_hw), "detkit_version": __version__}
    artifact.write(converted(folder, image_hw, 2, ".onnx"), metadata)
    artifact = artifact._replace(format="openvino")
    artifact.write(converted(folder, image_hw, 2, ".xml"), metadata)
    single = artifact.signature._replace(dynamic="none")
    artifact = artifact._replace(content=_for_one_image(artifact.content), signature=single)
    artifact.write(converted(folder, image_hw, 1, ".xml"), metadata)


def converted(folder: Path, image_hw: tuple[int, int], batch_size: int, suffix: str) -> Path:
    """Where such a file lies, for batches of this size."""
    single = "_single" if suffix == ".xml" and batch_size == 1 else ""
    return folder / f"model_{image_hw[0]}x{image_hw[1]}{single}{suffix}"


def _for_one_image(model: onnx.ModelProto) -> onnx.ModelProto:
    single = onnx.ModelProto()
    single.CopyFrom(model)
    [images] = single.graph.input
    images.type.tensor_type.shape.dim[0].dim_value = 1
    return single
