"""Training checkpoints: all that a run goes on from.

Note [commit mark]: a training checkpoint is two files, ``step-N.ckpt`` and ``step-N.json``. Each is
written to a temporary file in the same folder, synced, and moved over its name; the mark comes last
and holds the SHA-256 of the first. A checkpoint without a mark that fits it does not exist, so
there is no moment at which a kill or a full disk leaves half of one.
"""

import hashlib
import json
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from detkit.checkpoint.file import DIGEST, UNREADABLE, first_line, local, replace, sync_folder
from detkit.errors import CheckpointError

FORMAT = 1
PLAIN = (str, int, float, bool, type(None), Tensor)


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
        size = replace(path, lambda file: torch.save(state, _Hashing(file, digest)))  # type: ignore[arg-type]
        mark = {"format": FORMAT, "step": step, "epoch": epoch, "score": score, "size": size}
        text = json.dumps({**mark, DIGEST: digest.hexdigest(), "facts": facts}, indent=1)
        replace(mark_path(path), lambda file: file.write(text.encode()))
    except (OSError, RuntimeError) as error:
        cause = error.__context__ if isinstance(error, RuntimeError) else error  # torch says only that it failed
        raise CheckpointError(f"{path}: cannot be written: {getattr(cause, 'strerror', None) or error}") from error


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The state that was written, after a check of every byte; tensors on the CPU.

    Raises:
        CheckpointError: if the file or its mark is missing, damaged, or not made of plain data.
    """
    path = local(path)
    mark = read_mark(path)
    try:
        with path.open("rb") as file:
            if _digest(file) != mark.sha256:
                raise CheckpointError(f"{path}: is damaged: its SHA-256 is not that in {mark_path(path).name}")
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UNREADABLE as error:
        raise CheckpointError(f"{path}: is not plain data: {first_line(error)}") from error
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
        text = mark_path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        name = path.name if not path.exists() else f"its mark {mark_path(path).name}"
        raise CheckpointError(f"{path}: no complete checkpoint: cannot read {name}") from error
    try:
        fields = json.loads(text)
        score = None if fields["score"] is None else float(fields["score"])
        numbers = int(fields["step"]), int(fields["epoch"]), score
        mark = Mark(path, *numbers, str(fields[DIGEST]), int(fields["size"]), dict(fields["facts"]))
    except (ValueError, TypeError, LookupError) as error:
        raise CheckpointError(f"{path}: its mark {mark_path(path).name} is damaged: {first_line(error)}") from error
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
    mark_path(path).unlink(missing_ok=True)
    sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of saves that were killed."""
    for path in folder.glob("*.tmp.*"):
        path.unlink(missing_ok=True)


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


def mark_path(path: Path) -> Path:
    """Where the mark of a checkpoint lies."""
    return path.with_suffix(".json")


def _digest(file: BufferedReader) -> str:
    return hashlib.file_digest(file, DIGEST).hexdigest()


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
