"""Writers of exported detectors: whole files or none, each with the metadata inside that detkit reads back."""

import io
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch.export import ExportedProgram

from detkit.checkpoint import storing
from detkit.checkpoint.file import move
from detkit.errors import ExportError, StorageError
from detkit.export.converter_logs import quiet
from detkit.inference.runtimes import open_vino, torch_program

Metadata = Mapping[str, Any]  # plain JSON values


def write_onnx(path: Path, model: onnx.ModelProto, metadata: Metadata) -> None:
    """One file, the weights inside.

    Raises:
        StorageError: if it cannot be written; a file that was there stays.
    """
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, _texts(metadata))
    _put(path, lambda file: file.write_bytes(model.SerializeToString()))


def write_openvino(path: Path, model: onnx.ModelProto, metadata: Metadata) -> None:
    """An .xml with its .bin, from the ONNX graph.

    Raises:
        ExportError: if OpenVINO has not all of its operators.
        StorageError: if they cannot be written; files that were there stay.
    """
    import openvino
    from openvino.frontend import GeneralFailure, OpConversionFailure

    try:
        with quiet():
            converted = openvino.convert_model(io.BytesIO(model.SerializeToString()))
    except (GeneralFailure, OpConversionFailure, RuntimeError) as error:
        said = " ".join(str(error).split())[:300]
        raise ExportError(f"OpenVINO cannot convert the graph: {said}; format=onnx keeps it as it is") from error
    for key, text in _texts(metadata).items():
        converted.set_rt_info(text, [open_vino.INFO, key])

    def write(file: Path) -> None:
        openvino.save_model(converted, file, compress_to_fp16=False)
        digest = json.dumps(open_vino.digest_of_weights(file))
        converted.set_rt_info(digest, [open_vino.INFO, open_vino.WEIGHTS])
        openvino.save_model(converted, file, compress_to_fp16=False)  # the same weights, which the .xml now knows

    _put(path, write)


def write_torch_export(path: Path, program: ExportedProgram, metadata: Metadata) -> None:
    """A program of torch.export.

    Raises:
        StorageError: if it cannot be written; a file that was there stays.
    """
    files = {torch_program.INFO: json.dumps(_texts(metadata))}
    _put(path, lambda file: torch.export.save(program, file, extra_files=files))


def write_torchscript(path: Path, traced: torch.jit.ScriptModule, metadata: Metadata) -> None:
    """A traced program.

    Raises:
        StorageError: if it cannot be written; a file that was there stays.
    """
    files = {torch_program.INFO: json.dumps(_texts(metadata))}
    _put(path, lambda file: torch.jit.save(traced, str(file), _extra_files=files))


WRITERS: dict[str, Callable[[Path, Any, Metadata], None]] = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "torch_export": write_torch_export,
    "torchscript": write_torchscript,
}


def _texts(metadata: Metadata) -> dict[str, str]:
    return {key: json.dumps(value) for key, value in metadata.items()}


def _put(path: Path, write: Callable[[Path], Any]) -> None:
    """Write in a folder beside the place and move what is there when it is whole; the file that is named comes last."""
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            try:
                with quiet():
                    write(Path(folder) / path.name)
            except RuntimeError as error:  # the writers of torch and OpenVINO
                raise StorageError(f"{path}: cannot be written: {str(error).partition(chr(10))[0]}") from error
            settle(Path(folder) / path.name, path)


def settle(written: Path, path: Path) -> None:
    """Move a written file, and the weights beside an .xml, to its place in a way that lasts through a power cut.

    The file that is named comes last, so that it is never there without its weights.

    Raises:
        OSError: if they cannot be moved.
    """
    files = sorted(written.parent.iterdir(), key=lambda file: file == written)
    for file in files:
        with file.open("rb+") as content:
            os.fsync(content.fileno())
    for file in files:
        move(file, path.with_name(file.name))
