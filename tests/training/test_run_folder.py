"""One folder for each run, known to the processes that rank 0 starts."""

from pathlib import Path

import pytest

from detkit.training.run_folder import VARIABLE, begin_folder


def test_runs_of_one_second_get_their_own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detkit.training.run_folder.TIME_FORMAT", "always")
    folders = [begin_folder(tmp_path / "runs", rank=0).path for _ in range(3)]
    assert [folder.name for folder in folders] == ["always", "always_2", "always_3"]
    assert all(folder.is_dir() for folder in folders)


def test_started_processes_share_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not begin_folder(tmp_path, rank=1).path.exists()  # torchrun: it learns the folder later
    folder = begin_folder(tmp_path, rank=0)
    assert begin_folder(tmp_path, rank=1) == folder
