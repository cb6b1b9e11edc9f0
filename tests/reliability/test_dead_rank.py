"""Two ranks of which one is killed, or fails, while both train."""

from pathlib import Path

import pytest

from tests.reliability import small_run
from tests.reliability.dead_rank import FAULTS, Fault, broken, forked


@pytest.mark.slow
@pytest.mark.parametrize("fault", [FAULTS[3], Fault("error", 0, "step")], ids=str)
def test_the_other_rank_ends_and_says_why(tmp_path: Path, fault: Fault) -> None:
    outcome = forked(fault, small_run.write_data(tmp_path / "set"), tmp_path)
    assert broken(fault, outcome) == [], outcome.said
    assert outcome.seconds < 20
    assert sorted(outcome.codes) == ([70, 137] if fault.how == "kill" else [65, 65])
