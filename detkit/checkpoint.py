"""The one writer and the one reader of training checkpoints and detector files.

Note [commit mark]: a training checkpoint is two files, ``step-N.ckpt`` and ``step-N.json``. Each is
written to a temporary file in the same folder, synced, and moved over its name; the mark comes last
and holds the SHA-256 of the first. A checkpoint without a mark that fits it does not exist, so
there is no moment at which a kill or a full disk leaves half of one.
"""

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from detkit.errors import CheckpointError

FORMAT = 1
DIGEST = "sha256"
PLAIN = (str, int, float, bool, type(None), Tensor)
UNREADABLE = (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError)


class Mark(NamedTuple):
    """What is known of a checkpoint without reading it."""

    path: Path  # of the checkpoint
    step: int  # optimizer steps done
    epoch: int  # epochs finished
    score: float | None  # what decides on the best; None: not measured at this step
    sha256: str
    size: int  # bytes
    facts: dict[str, Any]  # fingerprints, versions, threads, world size: plain JSON


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step:08d}.ckpt"


def write_checkpoint(
    path: Path, state: dict[str, Any], *, step: int, epoch: int, score: float | None, facts: dict[str, Any]
) -> None:
    """Write a checkpoint and its mark so that a crash at any moment leaves the one before, or this one.

    Args:
        path: as ``checkpoint_path`` gives it.
        state: plain containers, numbers, strings and tensors.
        step: optimizer steps done.
        epoch: epochs finished.
        score: what decides on the best; None: not measured at this step.
        facts: plain JSON for the mark.

    Raises:
        CheckpointError: if the state holds anything that could not be read back, or cannot be written.
    """
    _refuse_what_is_not_plain(state, "")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_mark(path)  # of an older file with the same name
        digest = hashlib.sha256()
        size = _replace(path, lambda file: torch.save(state, _Hashing(file, digest)))  # type: ignore[arg-type]
        mark = {"format": FORMAT, "step": step, "epoch": epoch, "score": score, "size": size}
        text = json.dumps({**mark, DIGEST: digest.hexdigest(), "facts": facts}, indent=1)
        _replace(_mark_path(path), lambda file: file.write(text.encode()))
    except (OSError, RuntimeError) as error:
        cause = error.__context__ if isinstance(error, RuntimeError) else error  # torch says only that it failed
        raise CheckpointError(f"{path}: cannot be written: {getattr(cause, 'strerror', None) or error}") from error


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The state that was written, after a check of every byte; tensors on the CPU.

    Raises:
        CheckpointError: if the file or its mark is missing, damaged, or not made of plain data.
    """
    path = _local(path)
    mark = read_mark(path)
    try:
        with path.open("rb") as file:
            if _digest(file) != mark.sha256:
                raise CheckpointError(f"{path}: is damaged: its SHA-256 is not that in {_mark_path(path).name}")
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UNREADABLE as error:
        raise CheckpointError(f"{path}: is not plain data: {_first_line(error)}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: is not a training checkpoint: it holds a {type(state).__name__}")
    return state


def read_mark(path: Path) -> Mark:
    """The mark of a checkpoint; the checkpoint itself is only looked at for its size.

    Raises:
        CheckpointError: if there is no checkpoint here, or none that was written to its end.
    """
    try:
        size = path.stat().st_size
        text = _mark_path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        name = path.name if not path.exists() else f"its mark {_mark_path(path).name}"
        raise CheckpointError(f"{path}: no complete checkpoint: cannot read {name}") from error
    try:
        fields = json.loads(text)
        score = None if fields["score"] is None else float(fields["score"])
        numbers = int(fields["step"]), int(fields["epoch"]), score
        mark = Mark(path, *numbers, str(fields[DIGEST]), int(fields["size"]), dict(fields["facts"]))
    except (ValueError, TypeError, LookupError) as error:
        raise CheckpointError(f"{path}: its mark {_mark_path(path).name} is damaged: {_first_line(error)}") from error
    if fields.get("format") != FORMAT:
        raise CheckpointError(f"{path}: has format {fields.get('format')}; this detkit reads format {FORMAT}")
    if size != mark.size:
        raise CheckpointError(f"{path}: has {size} bytes; {mark.size} were written")
    return mark


def marks_in(folder: Path) -> list[Mark]:
    """The checkpoints of a folder that were written to their end, by step."""
    marks = []
    for path in folder.glob("step-*.ckpt"):
        try:
            marks.append(read_mark(path))
        except CheckpointError:
            continue  # unfinished or damaged: as if it were not there
    return sorted(marks, key=lambda mark: mark.step)


def latest_checkpoint(folder: Path) -> Mark | None:
    """The checkpoint with the highest step whose every byte is as it was written."""
    for mark in reversed(marks_in(folder)):
        with mark.path.open("rb") as file:
            if _digest(file) == mark.sha256:
                return mark
    return None


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, its mark first."""
    remove_mark(path)
    path.unlink(missing_ok=True)


def remove_mark(path: Path) -> None:
    """Make a checkpoint count as not written."""
    _mark_path(path).unlink(missing_ok=True)
    _sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of saves that were killed."""
    for path in folder.glob("*.tmp.*"):
        path.unlink(missing_ok=True)


def write_detector(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a trained detector: its weights and all that is needed to rebuild it.

    Args:
        path: of the safetensors file; replaced in one move.
        weights: state_dict of the detector.
        metadata: plain JSON values.

    Raises:
        CheckpointError: if a value is no plain JSON, or the file cannot be written.
    """
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights.items()}
    try:
        texts = {key: json.dumps(value) for key, value in metadata.items()}
    except TypeError as error:
        raise CheckpointError(f"{path}: the metadata must be plain JSON values: {error}") from error
    texts[DIGEST] = _digest_of_detector(tensors, texts)
    content = safetensors.torch.save(tensors, texts)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, lambda file: file.write(content))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error


def read_detector(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and metadata of a detector file, after a check of every byte.

    Raises:
        CheckpointError: if the file is missing, damaged, or no detector that detkit wrote.
    """
    path = _local(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            texts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (safetensors.SafetensorError, OSError, *UNREADABLE) as error:
        raise CheckpointError(f"{path}: is no readable safetensors file: {_first_line(error)}") from error
    digest = texts.pop(DIGEST, None)
    if digest is None:
        raise CheckpointError(f"{path}: was not written by detkit: it has no {DIGEST}, recipe and class names inside")
    if digest != _digest_of_detector(tensors, texts):
        raise CheckpointError(f"{path}: is damaged: its content does not fit the SHA-256 inside")
    return tensors, {key: json.loads(text) for key, text in texts.items()}


class _Hashing:
    """A file that hashes what is written to it."""

    def __init__(self, file: BinaryIO, digest: Any) -> None:
        self.file = file
        self.digest = digest

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _replace(path: Path, write: Callable[[BinaryIO], Any]) -> int:
    """See Note [commit mark]; returns the number of bytes."""
    temporary = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return size


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _mark_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _digest(file: BufferedReader) -> str:
    return hashlib.file_digest(file, DIGEST).hexdigest()


def _digest_of_detector(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(sorted(texts.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _local(path: str | Path) -> Path:
    if "://" in str(path):
        raise CheckpointError(f"{path}: checkpoints are read from files only; download it first")
    return Path(path).expanduser()


def _refuse_what_is_not_plain(value: Any, place: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_what_is_not_plain(key, f"{place}[{key!r}]")
            _refuse_what_is_not_plain(item, f"{place}[{key!r}]")
    elif type(value) in (list, tuple):
        for number, item in enumerate(value):
            _refuse_what_is_not_plain(item, f"{place}[{number}]")
    elif type(value) not in PLAIN and not isinstance(value, Tensor):
        raise CheckpointError(
            f"a checkpoint holds plain values and tensors only; state{place} is a {type(value).__qualname__}"
        )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
