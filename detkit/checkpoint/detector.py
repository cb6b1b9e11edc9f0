"""Detector files: the weights to use, and all that they are rebuilt from."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from detkit.checkpoint.file import DIGEST, UNREADABLE, PlainData, first_line, local, make_folder, replace, storing
from detkit.errors import CheckpointError, nearest_path

FORMAT = 2  # of the metadata; 1 (no number inside): the recipe holds the augmentation among the keys of its data
FORMAT_KEY = "detector_format"


def write_detector(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, object]) -> None:
    """Write a trained detector: its weights and all that is needed to rebuild it.

    Args:
        path: of the safetensors file; replaced in one move.
        weights: state_dict of the detector.
        metadata: plain JSON values.

    Raises:
        CheckpointError: if a value is no plain JSON.
        StorageError: if the file cannot be written; the one before stays.
    """
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights.items()}
    try:
        texts = {key: json.dumps(value) for key, value in {**metadata, FORMAT_KEY: FORMAT}.items()}
    except TypeError as error:
        raise CheckpointError(f"{path}: the metadata must be plain JSON values: {error}") from error
    texts[DIGEST] = _digest_of_detector(tensors, texts)
    content = safetensors.torch.save(tensors, texts)
    with storing(path, needed=len(content)):
        make_folder(path.parent)
        replace(path, lambda file: file.write(content))


def read_detector(path: str | Path) -> tuple[dict[str, Tensor], PlainData]:
    """Weights and metadata of a detector file, after a check of every byte.

    Raises:
        CheckpointError: if the file is missing, damaged, or no detector that detkit wrote.
    """
    path = local(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file{nearest_path(path)}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            texts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (OSError, *UNREADABLE) as error:
        raise CheckpointError(f"{path}: is no readable safetensors file: {first_line(error)}") from error
    digest = texts.pop(DIGEST, None)
    if digest is None:
        raise CheckpointError(f"{path}: was not written by detkit: it has no {DIGEST}, recipe and class names inside")
    try:
        if digest != _digest_of_detector(tensors, texts):
            raise CheckpointError(f"{path}: is damaged: its content does not fit the SHA-256 inside")
        metadata = {key: json.loads(text) for key, text in texts.items()}
    except UNREADABLE as error:
        raise CheckpointError(f"{path}: its metadata cannot be read: {first_line(error)}") from error
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
