"""Workers that are killed, as scripts/train.py meets it."""

import signal
from pathlib import Path

import pytest

from tests.reliability import small_run
from tests.reliability.killed_workers import broken, train


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "worker"), [("step", 2), ("save", 3)])  # 0 and 1 are those of validation
def test_the_worker_is_named_and_the_run_ends(tmp_path: Path, moment: str, worker: int) -> None:
    root = small_run.write_data(tmp_path / "set")
    outcome = train(root, tmp_path, signal.SIGKILL, moment, 2, worker)
    assert broken(signal.SIGKILL, 2, outcome) == [], outcome.ended.said
