"""Images that are lost in mid-run, as scripts/train.py meets them."""

from pathlib import Path

import pytest

from tests.reliability import small_run
from tests.reliability.lost_images import ENDS, try_end, try_kind, without_a_fault


@pytest.mark.slow
def test_the_run_goes_on_alike_for_any_number_of_workers(tmp_path: Path) -> None:
    root = small_run.write_data(tmp_path / "set")
    outcomes, broken = try_kind("deleted", root, tmp_path, without_a_fault(root, tmp_path))
    assert broken == [], outcomes[1].ended.said


@pytest.mark.slow
@pytest.mark.parametrize("what", ENDS)
def test_the_run_ends(tmp_path: Path, what: str) -> None:
    outcome, broken = try_end(what, small_run.write_data(tmp_path / "set"), tmp_path)
    assert broken == [], outcome.ended.said
