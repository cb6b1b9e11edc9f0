"""Training checkpoints: all that a run goes on from.

Note [commit manifest]: a training checkpoint is two files, ``step-N.ckpt`` and ``step-N.json``. Both are
written to temporary files in the same folder and synced before either is moved over its name; the
manifest is moved last and holds the SHA-256 of the first, and of itself. A checkpoint without a manifest
that fits it does not exist, so there is no moment at which a kill or a full disk leaves half of one,
and nothing that was there before is touched until all bytes of the new one are on disk.
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
    Hashing,
    PlainData,
    beside,
    first_line,
    local,
    make_folder,
    move,
    storing,
    sync_folder,
)
from detkit.checkpoint.plain import load_plain
from detkit.errors import CheckpointError
from detkit.files import open_regular

FORMAT = 2  # 1: the manifest has no digest of itself
MANIFEST_DIGEST = "mark_sha256"
MAX_MANIFEST_BYTES = 2**20
PLAIN = (str, int, float, bool, type(None), Tensor)


CheckpointState = dict[str, Any]  # plain containers, numbers, strings and tensors


class CheckpointManifest(NamedTuple):
    """What is known of a checkpoint without reading it."""

    path: Path  # of the checkpoint
    step: int  # optimizer steps done
    epoch: int  # epochs finished
    score: float | None  # what decides on the best; None: not measured at this step
    sha256: str
    size: int  # bytes
    facts: PlainData  # fingerprints, versions, threads, world size: plain JSON


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step:08d}.ckpt"


def write_checkpoint(
    path: Path, state: CheckpointState, *, step: int, epoch: int, score: float | None, facts: PlainData
) -> None:
    """Write a checkpoint and its manifest so that a crash at any moment leaves the one before, or this one.

    Args:
        path: as ``checkpoint_path`` gives it.
        state: plain containers, numbers, strings and tensors.
        step: optimizer steps done.
        epoch: epochs finished.
        score: what decides on the best; None: not measured at this step.
        facts: plain JSON for the manifest.

    Raises:
        CheckpointError: if the state holds anything that could not be read back.
        StorageError: if it cannot be written; what was there before still is.
    """
    _refuse_what_is_not_plain(state, "")
    fields: PlainData = {"format": FORMAT, "step": step, "epoch": epoch, "score": score}

    def write_data(file: BinaryIO) -> None:
        fields.update(_save(state, file))

    def write_manifest(file: BinaryIO) -> None:
        file.write(manifest_text({**fields, "facts": facts}).encode())

    with storing(path, needed=sum(tensor.nbytes for tensor in _tensors(state))):
        make_folder(path.parent)
        with beside(path, write_data) as data, beside(manifest_path(path), write_manifest) as manifest:
            remove_manifest(path)  # of an older file with the same name
            move(data, path)
            move(manifest, manifest_path(path))


def read_checkpoint(path: str | Path) -> CheckpointState:
    """The state that was written, after a check of every byte; tensors on the CPU.

    Raises:
        CheckpointError: if the file or its manifest is missing, damaged, or not made of plain data.
    """
    path = local(path)
    manifest = read_manifest(path)
    try:
        with open_regular(path) as file:
            if _digest(file) != manifest.sha256:
                raise CheckpointError(f"{path}: is damaged: its SHA-256 is not that in {manifest_path(path).name}")
            file.seek(0)
            state = load_plain(file)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UNREADABLE as error:
        raise CheckpointError(f"{path}: is not plain data: {first_line(error)}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: is not a training checkpoint: it holds a {type(state).__name__}")
    return state


def read_manifest(path: Path) -> CheckpointManifest:
    """The manifest of a checkpoint; the checkpoint itself is only looked at for its size.

    Raises:
        CheckpointError: if there is no checkpoint here, or none that was written to its end.
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
            f"{path}: its manifest {manifest_path(path).name} is damaged: {first_line(error)}"
        ) from error
    _check_manifest(path, fields, text)
    if size != manifest.size:
        raise CheckpointError(f"{path}: has {size} bytes; {manifest.size} were written")
    return manifest


def manifests_in(folder: Path) -> list[CheckpointManifest]:
    """The checkpoints of a folder that were written to their end, by step."""
    manifests = []
    for path in folder.glob("step-*.ckpt"):
        try:
            manifests.append(read_manifest(path))
        except CheckpointError:
            continue  # unfinished or damaged: as if it were not there
    return sorted(manifests, key=lambda manifest: manifest.step)


def latest_checkpoint(folder: Path) -> CheckpointManifest | None:
    """The checkpoint with the highest step whose every byte is as it was written."""
    return next((manifest for manifest in reversed(manifests_in(folder)) if _is_whole(manifest)), None)


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, its manifest first."""
    remove_manifest(path)
    path.unlink(missing_ok=True)


def remove_manifest(path: Path) -> None:
    """Make a checkpoint count as not written."""
    manifest_path(path).unlink(missing_ok=True)
    sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove what saves that were killed left: temporary files, and checkpoints that have no manifest."""
    for path in folder.glob("*.tmp.*"):
        path.unlink(missing_ok=True)
    for path in folder.glob("step-*.ckpt"):
        if not manifest_path(path).exists():
            path.unlink()


def manifest_path(path: Path) -> Path:
    """Where the manifest of a checkpoint lies."""
    return path.with_suffix(".json")


def manifest_text(fields: PlainData) -> str:
    """A manifest as it lies on disk, with a digest of itself in it: one text for the same fields, to the last space."""
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
            f"{path}: its manifest {manifest_path(path).name} is damaged: its content does not fit the SHA-256 inside"
        )


def _save(state: CheckpointState, file: BinaryIO) -> PlainData:
    """Write the state; returns size and digest."""
    hashing = Hashing(file)
    try:
        torch.save(state, hashing)  # type: ignore[arg-type]
    except RuntimeError:
        if hashing.failure is None:
            raise
    if hashing.failure is not None:
        raise hashing.failure
    return {"size": hashing.size, DIGEST: hashing.digest}


def _is_whole(manifest: CheckpointManifest) -> bool:
    try:
        with open_regular(manifest.path) as file:
            return _digest(file) == manifest.sha256
    except OSError:
        return False


def _digest(file: BufferedReader) -> str:
    return hashlib.file_digest(file, DIGEST).hexdigest()


def _refuse_what_is_not_plain(value: object, place: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_what_is_not_plain(key, f"{place}[{key!r}]")
            _refuse_what_is_not_plain(item, f"{place}[{key!r}]")
    elif isinstance(value, list | tuple) and type(value) in (list, tuple):
        for number, item in enumerate(value):
            _refuse_what_is_not_plain(item, f"{place}[{number}]")
    elif type(value) not in PLAIN and not isinstance(value, Tensor):
        raise CheckpointError(
            f"a checkpoint holds plain values and tensors only; state{place} is a {type(value).__qualname__}"
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
