"""Detector files: the weights of a trained detector, and the metadata to rebuild it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from detkit.checkpoint.file import (
    DIGEST,
    UNREADABLE,
    PlainData,
    error_line,
    local_path,
    make_folder,
    replace,
    storage_errors,
)
from detkit.errors import CheckpointError, nearest_path

FORMAT = 2  # format 1, in files without this number, has the keys of the augmentation in `data` itself
FORMAT_KEY = "detector_format"


def write_detector(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, object]) -> None:
    """Write a trained detector: its weights and the metadata to rebuild it.

    Args:
        path: path of the safetensors file, which is replaced atomically.
        weights: state_dict of the detector.
        metadata: JSON values.

    Raises:
        CheckpointError: if a value of the metadata is no JSON value.
        StorageError: if the file cannot be written; an earlier file is kept.
    """
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights.items()}
    try:
        texts = {key: json.dumps(value) for key, value in {**metadata, FORMAT_KEY: FORMAT}.items()}
    except TypeError as error:
        raise CheckpointError(f"{path}: the metadata must be JSON values: {error}") from error
    texts[DIGEST] = _digest_of_detector(tensors, texts)
    content = safetensors.torch.save(tensors, texts)
    with storage_errors(path, needed=len(content)):
        make_folder(path.parent)
        replace(path, lambda file: file.write(content))


def read_detector(path: str | Path) -> tuple[dict[str, Tensor], PlainData]:
    """The weights and metadata of a detector file, after a check of its SHA-256.

    Raises:
        CheckpointError: if the file is missing, damaged, or not written by detkit.
    """
    path = local_path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file{nearest_path(path)}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            texts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (OSError, *UNREADABLE) as error:
        raise CheckpointError(f"{path}: is no readable safetensors file: {error_line(error)}") from error
    digest = texts.pop(DIGEST, None)
    if digest is None:
        raise CheckpointError(f"{path}: was not written by detkit: its metadata lacks {DIGEST}, recipe and class names")
    try:
        if digest != _digest_of_detector(tensors, texts):
            raise CheckpointError(f"{path}: is damaged: its content does not match its SHA-256")
        metadata = {key: json.loads(text) for key, text in texts.items()}
    except UNREADABLE as error:
        raise CheckpointError(f"{path}: its metadata cannot be read: {error_line(error)}") from error
    found = metadata.get(FORMAT_KEY, 1)
    if found not in range(1, FORMAT + 1):
        raise CheckpointError(f"{path}: has {FORMAT_KEY} {found}; this detkit reads 1 to {FORMAT}: update detkit")
    return tensors, metadata


def _digest_of_detector(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(sorted(texts.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
