"""W&B wrong in every way, with less patience than a run has."""

from pathlib import Path

import pytest

from detkit.training.run import loggers
from tests.reliability.wandb_faults import Fault, Outcome, broken_promises, faults, plain_run, try_fault

ELSEWHERE = {"wrong key, 403", "503 in mid-run", "closes in mid-run"}  # like others; the program runs them
ONCE = {"no key", "connection refused", "its process killed in mid-run"}  # offline by itself, offline, left out


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return plain_run(tmp_path_factory.mktemp("plain"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=fault.name, marks=[] if fault.name in ONCE else pytest.mark.long)
        for fault in faults()
        if fault.name not in ELSEWHERE
    ],
)
def test_run_completes_with_the_same_files(
    fault: Fault, plain: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init_s, ask_s = (20, 4) if fault.then else (2, 1)  # what breaks in mid-run has to be online first
    for name, seconds in (("INIT_TIMEOUT_S", init_s), ("ASK_TIMEOUT_S", ask_s), ("FINISH_TIMEOUT_S", 1)):
        monkeypatch.setattr(loggers, name, seconds)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    assert broken_promises(fault, try_fault(fault, tmp_path), plain, limit_s=15) == []
