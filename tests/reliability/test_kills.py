"""The program of kills.py at a small scale, as it is called, and that it sees a run that is lost or differs."""

import collections
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reliability.kills import Killed, table_of

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_killed_runs_end_as_if_nobody_had_touched_them() -> None:
    """In a process of its own, because it forks."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.reliability.kills", "kills=20", "runs=2", "seed=1"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost 0, not the same 0" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    kills = {words[0]: int(words[1]) for words in rows if len(words) == 2 and words[1].isdigit()}
    assert kills.pop("all") >= 20 and len(kills) >= 3, done.stdout  # which phases, the machine decides too


def test_what_the_table_says() -> None:
    good = Killed(4, collections.Counter(save=2, step=1), [], [], 2.0)
    lost = Killed(9, collections.Counter(save=1), ["start 9: exit code 1: error"], [], 3.0)
    other = Killed(3, collections.Counter(), [], ["weights.model.x: tensors"], 1.0)
    assert table_of([good, lost, other]).splitlines()[1:] == [
        "step              1",
        "save              3",
        "all               4",
        "runs 3, starts 16",
        "lost 1, not the same 1, 6 s",
        "  start 9: exit code 1: error",
        "  weights.model.x: tensors",
    ]
