"""Training checkpoints, from which a run is resumed.

Note [commit manifest]: a training checkpoint has two files, ``step-N.ckpt`` and ``step-N.json``, the manifest. Both are
written to temporary files in the same folder and synced, then moved to their names, the manifest last. The manifest
has the SHA-256 of the checkpoint and of itself. A checkpoint without a matching manifest is ignored, so a killed
process or a full disk never leaves a part of a checkpoint, and earlier checkpoints are unchanged until then.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from detkit.checkpoint.file import (
    DIGEST,
    UNREADABLE,
    HashingFile,
    PlainData,
    error_line,
    local_path,
    make_folder,
    move,
    storage_errors,
    sync_folder,
    temporary_file,
)
from detkit.checkpoint.plain import load_plain
from detkit.errors import CheckpointError
from detkit.files import open_regular

FORMAT = 2  # 1: the manifest has no digest of itself
MANIFEST_DIGEST = "mark_sha256"  # the key in files
MAX_MANIFEST_BYTES = 2**20
PLAIN = (str, int, float, bool, type(None), Tensor)
CheckpointState = dict[str, Any]  # plain containers, numbers, strings and tensors


class CheckpointManifest(NamedTuple):
    """The description of a checkpoint that is stored next to it."""

    path: Path  # of the checkpoint
    step: int  # optimizer steps done
    epoch: int  # epochs finished
    score: float | None  # the number that selects the best epoch; None: not measured at this step
    sha256: str
    size: int  # bytes
    facts: PlainData  # fingerprints, versions, threads, world size: plain JSON


def checkpoint_path(folder: Path, step: int) -> Path:
    """The path of the checkpoint of a step."""
    return folder / f"step-{step:08d}.ckpt"


def write_checkpoint(
    path: Path, state: CheckpointState, *, step: int, epoch: int, score: float | None, facts: PlainData
) -> None:
    """Write a checkpoint and its manifest. After a crash at any moment either the old or the new checkpoint is valid.

    Args:
        path: a path from ``checkpoint_path``.
        state: plain containers, numbers, strings and tensors.
        step: optimizer steps done.
        epoch: epochs finished.
        score: the number that selects the best epoch; None: not measured at this step.
        facts: JSON values for the manifest.

    Raises:
        CheckpointError: if the state has a value that could not be read back.
        StorageError: if a file cannot be written; earlier files are kept.
    """
    _require_plain(state, "")
    fields: PlainData = {"format": FORMAT, "step": step, "epoch": epoch, "score": score}

    def write_data(file: BinaryIO) -> None:
        fields.update(_save(state, file))

    def write_manifest(file: BinaryIO) -> None:
        file.write(manifest_text({**fields, "facts": facts}).encode())

    with storage_errors(path, needed=sum(tensor.nbytes for tensor in _tensors(state))):
        make_folder(path.parent)
        with (
            temporary_file(path, write_data) as data,
            temporary_file(manifest_path(path), write_manifest) as manifest,
        ):
            remove_manifest(path)  # of an older file with the same name
            move(data, path)
            move(manifest, manifest_path(path))


def read_checkpoint(path: str | Path) -> CheckpointState:
    """The state in a checkpoint, after a check of its SHA-256; tensors on the CPU.

    Raises:
        CheckpointError: if the file or its manifest is missing, damaged, or has other content than plain data.
    """
    path = local_path(path)
    manifest = read_manifest(path)
    try:
        with open_regular(path) as file:
            if _digest(file) != manifest.sha256:
                raise CheckpointError(f"{path}: is damaged: its SHA-256 differs from its manifest")
            file.seek(0)
            state = load_plain(file)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UNREADABLE as error:
        raise CheckpointError(f"{path}: is not plain data: {error_line(error)}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: is not a training checkpoint: its content is a {type(state).__name__}")
    return state


def read_manifest(path: Path) -> CheckpointManifest:
    """The manifest of a checkpoint. Of the checkpoint itself only the size is checked.

    Raises:
        CheckpointError: if there is no complete checkpoint.
    """
    try:
        size = path.stat().st_size
        with open_regular(manifest_path(path)) as file:
            text = file.read(MAX_MANIFEST_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        name = path.name if not path.exists() else f"its manifest {manifest_path(path).name}"
        raise CheckpointError(f"{path}: no complete checkpoint: cannot read {name}") from error
    try:
        fields = json.loads(text)
        score = None if fields["score"] is None else float(fields["score"])
        numbers = int(fields["step"]), int(fields["epoch"]), score
        manifest = CheckpointManifest(path, *numbers, str(fields[DIGEST]), int(fields["size"]), dict(fields["facts"]))
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: its manifest {manifest_path(path).name} is damaged: {error_line(error)}"
        ) from error
    _check_manifest(path, fields, text)
    if size != manifest.size:
        raise CheckpointError(f"{path}: has {size} bytes; {manifest.size} were written")
    return manifest


def manifests_in(folder: Path) -> list[CheckpointManifest]:
    """The manifests of all complete checkpoints in a folder, by step."""
    manifests = []
    for path in folder.glob("step-*.ckpt"):
        try:
            manifests.append(read_manifest(path))
        except CheckpointError:
            continue  # incomplete or damaged checkpoints are ignored
    return sorted(manifests, key=lambda manifest: manifest.step)


def latest_checkpoint(folder: Path) -> CheckpointManifest | None:
    """The checkpoint with the highest step whose SHA-256 is right."""
    return next((manifest for manifest in reversed(manifests_in(folder)) if _is_intact(manifest)), None)


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint; its manifest first."""
    remove_manifest(path)
    path.unlink(missing_ok=True)


def remove_manifest(path: Path) -> None:
    """Remove the manifest, so that the checkpoint is ignored."""
    manifest_path(path).unlink(missing_ok=True)
    sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and checkpoints without a manifest, which a killed save may leave."""
    for path in folder.glob("*.tmp.*"):
        path.unlink(missing_ok=True)
    for path in folder.glob("step-*.ckpt"):
        if not manifest_path(path).exists():
            path.unlink()


def manifest_path(path: Path) -> Path:
    """The path of the manifest of a checkpoint."""
    return path.with_suffix(".json")


def manifest_text(fields: PlainData) -> str:
    """The text of a manifest with a digest of itself. Equal fields always give the same text."""
    own = hashlib.sha256(json.dumps(fields).encode()).hexdigest()
    return json.dumps({**fields, MANIFEST_DIGEST: own}, indent=1)


def _check_manifest(path: Path, fields: PlainData, text: str) -> None:
    if fields.get("format") not in (1, FORMAT):
        raise CheckpointError(f"{path}: has format {fields.get('format')}; this detkit reads formats 1 and {FORMAT}")
    own = fields.pop(MANIFEST_DIGEST, None)
    if own is None and fields["format"] == 1:
        return
    if text != manifest_text(fields):
        raise CheckpointError(
            f"{path}: its manifest {manifest_path(path).name} is damaged: its content does not match its SHA-256"
        )


def _save(state: CheckpointState, file: BinaryIO) -> PlainData:
    """Write the state and return size and digest."""
    hashing = HashingFile(file)
    try:
        torch.save(state, hashing)  # type: ignore[arg-type]
    except RuntimeError:
        if hashing.failure is None:
            raise
    if hashing.failure is not None:
        raise hashing.failure
    return {"size": hashing.size, DIGEST: hashing.digest}


def _is_intact(manifest: CheckpointManifest) -> bool:
    try:
        with open_regular(manifest.path) as file:
            return _digest(file) == manifest.sha256
    except OSError:
        return False


def _digest(file: BufferedReader) -> str:
    return hashlib.file_digest(file, DIGEST).hexdigest()


def _require_plain(value: object, place: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _require_plain(key, f"{place}[{key!r}]")
            _require_plain(item, f"{place}[{key!r}]")
    elif isinstance(value, list | tuple) and type(value) in (list, tuple):
        for number, item in enumerate(value):
            _require_plain(item, f"{place}[{number}]")
    elif type(value) not in PLAIN and not isinstance(value, Tensor):
        raise CheckpointError(
            f"a checkpoint may contain plain values and tensors only; state{place} is a {type(value).__qualname__}"
        )


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
