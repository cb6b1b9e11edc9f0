"""SIGTERM in each phase of a run, once; sixty times by the program."""

from pathlib import Path

import pytest

from tests.reliability import signals


@pytest.mark.slow
def test_stopped_in_each_phase_and_resumed(tmp_path: Path) -> None:
    stopped = list(signals.stop_and_resume(tmp_path, len(signals.PHASES)))
    assert [f"{run.phase}: {run.broken}" for run in stopped if run.broken] == []
    assert [run.phase for run in stopped] == list(signals.PHASES)


@pytest.mark.slow
def test_all_processes_of_the_script_get_the_signal(tmp_path: Path) -> None:
    (stopped,) = signals.stop_script(tmp_path / "script", 1)
    assert (stopped.outcome, stopped.broken) == ("code 143, step 6", "")
