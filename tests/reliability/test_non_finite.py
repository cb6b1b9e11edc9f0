"""Numbers that are not finite, one fault of each kind."""

from pathlib import Path

import pytest

from tests.reliability.non_finite import Fault, faults, try_fault


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.name)
def test_stopped_in_the_same_step_and_nothing_of_it_saved(fault: Fault, tmp_path: Path) -> None:
    assert try_fault(fault, "stop", tmp_path).broken == []


@pytest.mark.parametrize("fault", [fault for fault in faults() if fault.can_skip], ids=lambda fault: fault.name)
def test_skipped(fault: Fault, tmp_path: Path) -> None:
    assert try_fault(fault, "skip", tmp_path).broken == []


def test_state_that_is_spoilt_cannot_be_skipped(tmp_path: Path) -> None:
    [fault] = [fault for fault in faults() if fault.name == "learning rate inf"]
    outcome = try_fault(fault, "skip", tmp_path)
    assert outcome.broken == []
    assert "(model.body.0.weight, model.body.0.bias, model.body.1.weight, ...," in outcome.message
    assert "learning rate inf) in step 1" in outcome.message
