"""Checkpoints and detector files: what is written comes back, and whatever is broken is found and named."""

import errno
import hashlib
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from detkit.checkpoint import (
    checkpoint_path,
    format_bytes,
    latest_checkpoint,
    manifests_in,
    read_checkpoint,
    read_detector,
    read_manifest,
    remove_checkpoint,
    remove_leftovers,
    write_checkpoint,
    write_detector,
)
from detkit.checkpoint.training import manifest_text
from detkit.errors import CheckpointError, StorageError


def state(step: int) -> dict[str, Any]:
    weights = torch.arange(40.0).reshape(10, 4) + step
    return {"step": step, "weights": weights, "nested": [{"lr": 0.1, "betas": (0.9, 0.99)}, None, True, "text"]}


def write(folder: Path, step: int, score: float | None = None) -> Path:
    path = checkpoint_path(folder, step)
    write_checkpoint(path, state(step), step=step, epoch=step // 10, score=score, facts={"threads": 1})
    return path


def same(path: Path, step: int) -> bool:
    read = read_checkpoint(path)
    return (
        bool((read["weights"] == state(step)["weights"]).all())
        and read["nested"] == state(step)["nested"]
        and read["step"] == step
    )


def test_comes_back(tmp_path: Path) -> None:
    path = write(tmp_path / "new" / "folder", 12, score=0.5)
    assert same(path, 12)
    manifest = read_manifest(path)
    assert (manifest.step, manifest.epoch, manifest.score, manifest.facts) == (12, 1, 0.5, {"threads": 1})
    assert manifest.size == path.stat().st_size
    assert sorted(file.name for file in path.parent.iterdir()) == ["step-00000012.ckpt", "step-00000012.json"]


def test_latest_is_the_highest_step_not_the_youngest_file(tmp_path: Path) -> None:
    for step in (20, 100, 30):
        write(tmp_path, step)
    os.utime(checkpoint_path(tmp_path, 100), (0, 0))
    latest = latest_checkpoint(tmp_path)
    assert latest is not None and latest.step == 100
    assert [manifest.step for manifest in manifests_in(tmp_path)] == [20, 30, 100]


def test_damaged_one_gives_way_to_the_one_before(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        write(tmp_path, step)
    flip_bit(checkpoint_path(tmp_path, 4), 3000)
    checkpoint_path(tmp_path, 3).with_suffix(".json").write_text('{"step": ')
    latest = latest_checkpoint(tmp_path)
    assert latest is not None and latest.step == 2
    assert latest_checkpoint(tmp_path / "none") is None


class Crash(BaseException):
    """Stands for a kill: nothing catches it."""


def test_crash_at_every_point_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is touched by these calls only; after each of them, and before, a checkpoint is whole."""
    calls = [(os, "fsync"), (os, "open"), (Path, "replace"), (Path, "open"), (Path, "unlink"), (Path, "mkdir")]
    points = 0
    while True:
        folder = tmp_path / str(points)
        write(folder, 1)
        write(folder, 2)
        with monkeypatch.context() as patch:
            left = [points]
            for owner, name in calls:
                patch.setattr(owner, name, crashing(getattr(owner, name), left))
            try:
                write(folder, 2)
                finished = True
            except Crash:
                finished = False
        latest = latest_checkpoint(folder)
        assert latest is not None and same(latest.path, latest.step), points
        if finished:
            break
        points += 1
    assert points >= 12
    assert latest.step == 2


def crashing(call: Any, left: list[int]) -> Any:
    def crash(*args: Any, **kwargs: Any) -> Any:
        if left[0] <= 0:
            raise Crash
        left[0] -= 1
        return call(*args, **kwargs)

    return crash


def test_leftovers_are_removed(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    (tmp_path / "step-00000002.ckpt.tmp.77").write_bytes(b"half")
    (tmp_path / "step-00000003.ckpt").write_bytes(b"killed before its manifest")
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2 and same(path, 1)


def test_removed(tmp_path: Path) -> None:
    remove_checkpoint(write(tmp_path, 1))
    assert list(tmp_path.iterdir()) == []


def flip_bit(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    files = {"ckpt": write(tmp_path, 1), "safetensors": tmp_path / "detector.safetensors"}
    write_detector(files["safetensors"], {"a.weight": torch.arange(6.0)}, {"recipe": {"seed": 0}})
    rng = np.random.default_rng(0)
    for path in files.values():
        bits = rng.choice(path.stat().st_size * 8, 150, replace=False)
        for bit in bits.tolist():
            flip_bit(path, bit)
            with pytest.raises(CheckpointError, match=path.name):
                read_checkpoint(path) if path.suffix == ".ckpt" else read_detector(path)
            flip_bit(path, bit)
    assert same(files["ckpt"], 1)
    assert read_detector(files["safetensors"])[1]["recipe"] == {"seed": 0}


def test_every_cut_is_found(tmp_path: Path) -> None:
    path, detector = write(tmp_path, 1), tmp_path / "detector.safetensors"
    write_detector(detector, {"a": torch.arange(6.0)}, {"recipe": {}})
    for file, read in ((path, read_checkpoint), (detector, read_detector)):
        content = file.read_bytes()
        for length in range(0, len(content), max(1, len(content) // 60)):
            file.write_bytes(content[:length])
            with pytest.raises(CheckpointError, match=file.name):
                read(file)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (np.float64(0.5), r"state\['a'\]\[1\] is a float64"),
        (Path("x"), r"state\['a'\]\[1\] is a PosixPath"),
        ({1, 2}, r"state\['a'\]\[1\] is a set"),
    ],
)
def test_only_plain_values_are_written(tmp_path: Path, value: Any, match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        write_checkpoint(tmp_path / "step-1.ckpt", {"a": [0, value]}, step=1, epoch=0, score=None, facts={})
    assert list(tmp_path.iterdir()) == []


class Payload:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("echo hacked > hacked",)


def test_a_pickle_with_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with a manifest that fits, and with torch's safe loader switched off by the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = write(tmp_path, 1)
    torch.save({"x": Payload()}, path)
    manifest = json.loads(path.with_suffix(".json").read_text())
    manifest |= {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    del manifest["mark_sha256"]
    path.with_suffix(".json").write_text(manifest_text(manifest))
    with pytest.raises(CheckpointError, match=r"step-00000001.ckpt: is not plain data: UnpicklingError"):
        read_checkpoint(path)
    assert not (tmp_path / "hacked").exists()


def test_a_list_is_no_checkpoint(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    write_checkpoint(path, [1, 2], step=1, epoch=0, score=None, facts={})  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="its content is a list"):
        read_checkpoint(path)


def test_newer_format(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    manifest = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**manifest, "format": 9}))
    with pytest.raises(CheckpointError, match="has format 9; this detkit reads formats 1 and 2"):
        read_checkpoint(path)


@pytest.mark.parametrize("read", [read_checkpoint, read_detector])
def test_what_is_not_there(tmp_path: Path, read: Any) -> None:
    with pytest.raises(CheckpointError, match="absent"):
        read(tmp_path / "absent.ckpt")
    with pytest.raises(CheckpointError, match=r"https://host/x.ckpt: checkpoints are read from local files only"):
        read("https://host/x.ckpt")


def test_unwritable_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/step-00000001.ckpt: cannot be written: File exists"):
        write(tmp_path / "file", 1)
    with pytest.raises(StorageError, match=r"file/d.safetensors: cannot be written: File exists"):
        write_detector(tmp_path / "file" / "d.safetensors", {}, {})


@pytest.mark.parametrize("limit", [0, 100, 1000, 1500])
def test_full_disk_is_said_and_the_checkpoint_before_stays(tmp_path: Path, limit: int) -> None:
    """A limit on the size of files stands for the full disk; the same step, too, stays as it was."""
    write(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    said = r"cannot be written: File too large; about 0.2 kB needed, \d+.\d .B free; raise the limit"
    try:
        for step in (2, 1):
            with pytest.raises(StorageError, match=rf"step-0000000{step}.ckpt: {said}"):
                write(tmp_path, step)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    latest = latest_checkpoint(tmp_path)
    assert latest is not None and same(latest.path, 1)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, r"No space left on device; about 0.2 kB needed, .* free; free some space there"),
        (errno.EDQUOT, r"Disk quota exceeded; about 0.2 kB needed, .* free; the quota is used up"),
        (errno.EROFS, r"Read-only file system; the file system is mounted read-only"),
        (errno.EACCES, r"Permission denied; make the folder writable"),
        (errno.EIO, r"Input/output error; the disk reports a fault"),
    ],
)
def test_each_reason_has_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    write(tmp_path, 1)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=f"step-00000001.ckpt: cannot be written: {said}") as raised:
        write(tmp_path, 1)
    assert raised.value.exit_code == 74 and same(checkpoint_path(tmp_path, 1), 1)


@pytest.mark.parametrize(("size", "text"), [(0, "0.0 kB"), (999_000, "999.0 kB"), (2.5e6, "2.5 MB"), (3e10, "30.0 GB")])
def test_sizes_are_readable(size: int, text: str) -> None:
    assert format_bytes(size) == text


def test_a_mark_of_format_1_is_read(tmp_path: Path) -> None:
    """It has no digest of itself; one of format 2 must have it."""
    path = write(tmp_path, 1)
    fields = json.loads(path.with_suffix(".json").read_text())
    del fields["mark_sha256"]
    path.with_suffix(".json").write_text(json.dumps(fields))
    with pytest.raises(
        CheckpointError, match=r"its manifest step-00000001.json is damaged: its content does not match"
    ):
        read_checkpoint(path)
    path.with_suffix(".json").write_text(json.dumps(fields | {"format": 1}))
    assert same(path, 1)


def test_every_flipped_bit_of_a_mark_is_found(tmp_path: Path) -> None:
    """Spaces and facts too."""
    path = write(tmp_path, 1, score=0.25)
    manifest = path.with_suffix(".json")
    for bit in range(0, manifest.stat().st_size * 8, 19):
        flip_bit(manifest, bit)
        with pytest.raises(CheckpointError, match=r"step-00000001.ckpt: (its manifest|no complete|has format)"):
            read_manifest(path)
        flip_bit(manifest, bit)
    assert same(path, 1)


@pytest.mark.parametrize("text", ["[" * 200_000, " " * 2**21, "[]", "{}", "1", ""])
def test_what_is_no_mark(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, 1)
    path.with_suffix(".json").write_text(text)
    with pytest.raises(CheckpointError, match=r"its manifest step-00000001.json is damaged"):
        read_manifest(path)


def test_an_error_of_torch_that_is_not_the_disk_stays_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError, match="CUDA error"):
        write(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_detector_comes_back(tmp_path: Path) -> None:
    shared = torch.arange(12.0).reshape(3, 4)
    weights = {
        "last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "one": shared,
        "other": shared,
        "empty": torch.zeros(0, 4),
    }
    metadata = {"recipe": {"model": {"a": [1, 2.5, None]}}, "class_names": ["Gänse", "cat"], "ap": 0.1 + 0.2}
    write_detector(tmp_path / "detector.safetensors", weights, metadata)
    read, read_metadata = read_detector(tmp_path / "detector.safetensors")
    assert read_metadata == {**metadata, "detector_format": 2}
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in weights.items())


def test_foreign_safetensors_is_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"x.safetensors: was not written by detkit"):
        read_detector(tmp_path / "x.safetensors")


def test_metadata_must_be_json(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="must be JSON values: Object of type PosixPath"):
        write_detector(tmp_path / "x.safetensors", {}, {"root": tmp_path})
