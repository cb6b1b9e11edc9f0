"""Hostile files: some through every door here, all through the functions when slow tests run; the program does all."""

from pathlib import Path

import pytest

from tests.reliability.forked import run
from tests.reliability.hostile import build_all, try_all


@pytest.mark.parametrize(
    ("every", "scripts_every", "least"),
    [(9, 3, 30), pytest.param(1, 20, 250, marks=pytest.mark.slow)],
    ids=["some", "all"],
)
def test_nothing_runs_and_one_line_says_why(tmp_path: Path, every: int, scripts_every: int, least: int) -> None:
    results = try_all(tmp_path / "kind", every=every, scripts_every=scripts_every)
    assert [fault for result in results for fault in result.broken] == []
    assert len(results) >= least


@pytest.mark.slow
def test_recipes_are_built_without_a_network(tmp_path: Path) -> None:
    ended = run(lambda: build_all(tmp_path), tmp_path / "said")
    assert (ended.code, ended.said) == (0, "")
    assert not (tmp_path / "executed").exists()
