"""Writers of exported detectors. Each writes a whole file or none, with the metadata that detkit reads back."""

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import onnx
import torch
from torch.export import ExportedProgram

from detkit.checkpoint import storage_errors
from detkit.checkpoint.file import move
from detkit.errors import ExportError, StorageError
from detkit.exporting.converter_logs import silenced
from detkit.inference.runtimes import open_vino, torch_program

Metadata = Mapping[str, Any]  # JSON values
Program = onnx.ModelProto | ExportedProgram | torch.jit.ScriptModule


def write_onnx(path: Path, model: onnx.ModelProto, metadata: Metadata) -> None:
    """Write one .onnx file with its weights.

    Raises:
        StorageError: if the file cannot be written; an existing file stays unchanged.
    """
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, _texts(metadata))
    _put(path, lambda file: file.write_bytes(model.SerializeToString()))


def write_openvino(path: Path, model: onnx.ModelProto, metadata: Metadata) -> None:
    """Convert the ONNX graph, and write an .xml file with its weights in a .bin file.

    Raises:
        ExportError: if OpenVINO lacks an operator.
        StorageError: if the files cannot be written; existing files stay unchanged.
    """
    import openvino
    from openvino.frontend import GeneralFailure, OpConversionFailure

    try:
        with silenced():
            converted = openvino.convert_model(io.BytesIO(model.SerializeToString()))
    except (GeneralFailure, OpConversionFailure, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"OpenVINO cannot convert the graph: {reason}; format=onnx needs no conversion") from error
    for key, text in _texts(metadata).items():
        converted.set_rt_info(text, [open_vino.INFO, key])

    def write(file: Path) -> None:
        openvino.save_model(converted, file, compress_to_fp16=False)
        digest = json.dumps(open_vino.digest_of_weights(file))
        converted.set_rt_info(digest, [open_vino.INFO, open_vino.WEIGHTS])
        openvino.save_model(converted, file, compress_to_fp16=False)  # the .xml now holds the digest of the .bin

    _put(path, write)


def write_torch_export(path: Path, program: ExportedProgram, metadata: Metadata) -> None:
    """Write a .pt2 file.

    Raises:
        StorageError: if the file cannot be written; an existing file stays unchanged.
    """
    files = {torch_program.INFO: json.dumps(_texts(metadata))}
    _put(path, lambda file: torch.export.save(program, file, extra_files=files))


def write_torchscript(path: Path, traced: torch.jit.ScriptModule, metadata: Metadata) -> None:
    """Write a .torchscript file.

    Raises:
        StorageError: if the file cannot be written; an existing file stays unchanged.
    """
    files = {torch_program.INFO: json.dumps(_texts(metadata))}
    _put(path, lambda file: torch.jit.save(traced, str(file), _extra_files=files))


WRITERS: dict[str, Callable[[Path, Any, Metadata], None]] = {  # Any: each takes the program of its own format
    "onnx": write_onnx,
    "openvino": write_openvino,
    "torch_export": write_torch_export,
    "torchscript": write_torchscript,
}


def add_metadata(path: Path, metadata: Metadata) -> None:
    """Add metadata to a written file. The program and the weights in it stay as they are, byte for byte.

    Args:
        path: of a file of these writers.
        metadata: under keys that the file does not have yet.

    Raises:
        OSError: if it cannot be written.
    """
    texts = _texts(metadata)
    if path.suffix == ".onnx":
        addition = onnx.ModelProto()
        onnx.helper.set_model_props(addition, texts)
        with path.open("ab") as file:
            file.write(addition.SerializeToString())  # concatenated protobuf messages are read as one
    elif path.suffix == ".xml":
        tree = ET.parse(path)
        section = tree.find(f"rt_info/{open_vino.INFO}")
        assert section is not None, "write_openvino writes it"
        for key, text in texts.items():
            ET.SubElement(section, key, value=text)
        tree.write(path, encoding="utf-8", xml_declaration=True)
    else:
        with zipfile.ZipFile(path, "a") as archive:
            [name] = [name for name in archive.namelist() if name.endswith(f"/{torch_program.INFO}")]
            archive.writestr(name.replace(torch_program.INFO, torch_program.ADDED_INFO), json.dumps(texts))


def _texts(metadata: Metadata) -> dict[str, str]:
    return {key: json.dumps(value) for key, value in metadata.items()}


def _put(path: Path, write: Callable[[Path], object]) -> None:
    """Write into a temporary folder in the target folder, then move the complete files."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            try:
                with silenced():
                    write(Path(folder) / path.name)
            except RuntimeError as error:  # torch and OpenVINO raise it in place of OSError
                raise StorageError(f"{path}: cannot be written: {str(error).partition(chr(10))[0]}") from error
            move_into_place(Path(folder) / path.name, path)


def move_into_place(written: Path, path: Path) -> None:
    """Move a written file, and the .bin of an .xml, so that a power cut leaves the old or the new file.

    The .bin is moved first, so that an .xml is never there without its weights.

    Args:
        written: alone in its folder, but for its .bin.
        path: where it goes.

    Raises:
        OSError: if the files cannot be moved.
    """
    files = sorted(written.parent.iterdir(), key=lambda file: file == written)
    for file in files:
        with file.open("rb+") as content:
            os.fsync(content.fileno())
    for file in files:
        move(file, path.with_name(file.name))
