"""Disks that fail: a few places here, all of them by the program."""

import os
from pathlib import Path

import pytest

from tests.reliability import full_disk


def faults(results: list[full_disk.Tried]) -> list[str]:
    return [f"{result.fault}: {result.broken}" for result in results if result.broken]


def test_places_of_a_save(tmp_path: Path) -> None:
    tried = list(full_disk.fail_at_places(tmp_path, 12))
    assert faults(tried) == [] and len({result.fault for result in tried}) == 12
    said = "\n".join(result.outcome for result in tried)
    assert "RUN/checkpoints/step-00000003.ckpt: cannot be written: " in said
    assert "RUN/detector.safetensors: cannot be written: No space left on device; about 120.2 kB needed" in said


def test_limit_of_size(tmp_path: Path) -> None:
    tried = list(full_disk.limit_of_size(tmp_path, 3))
    assert faults(tried) == []
    assert all("File too large" in result.outcome for result in tried)


def test_unwritable_folder(tmp_path: Path) -> None:
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)  # for the user who is not root to get there
    (result,) = full_disk.unwritable(tmp_path)
    assert result.broken == "" and "Permission denied; make the folder writable" in result.outcome


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a file system is for root")
def test_a_full_file_system(tmp_path: Path) -> None:
    tried = list(full_disk.full_tmpfs(tmp_path / "mounted"))
    if not tried:
        pytest.skip("mounting a file system is not allowed here")
    assert faults(tried) == []
    assert "No space left on device; about 120.2 kB needed, 4.1 kB free" in tried[1].outcome


@pytest.mark.slow
def test_whole_runs(tmp_path: Path) -> None:
    tried = list(full_disk.whole_runs(tmp_path / "runs", 2))
    assert faults(tried) == [] and [result.outcome for result in tried] == ["code 74", "code 0"]
