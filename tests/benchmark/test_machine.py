"""Facts about this process and this machine."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from detkit.benchmark.machine import is_installed, machine_facts, peak_mb, usable_cores


def test_the_peak_grows_with_what_is_held() -> None:
    """By 300 MB while as much is held, above all that was held before; and stays when it is given back."""
    with_all_before = peak_mb()
    held = []
    while peak_mb() < with_all_before + 50:  # earlier tests may have left room below the peak
        held.append(np.ones(4_000_000, np.uint8))
        assert len(held) < 5_000
    before = peak_mb()
    more = np.ones(300_000_000, np.uint8)
    assert peak_mb() - before == pytest.approx(300, abs=40)
    del more, held
    assert peak_mb() >= before + 260


@pytest.mark.skipif(sys.platform != "linux", reason="a process is bound to cores there")
def test_cores_are_those_of_this_process() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cores() == len(before)


def test_a_library_whose_package_has_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As onnxruntime of onnxruntime-gpu."""
    about = tmp_path / "toy_library_gpu-1.2.3.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-library-gpu\nVersion: 1.2.3\n")
    (about / "top_level.txt").write_text("toy_library\n")
    (tmp_path / "toy_library.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("detkit.benchmark.machine.LIBRARIES", ("torch", "toy_library", "not_there"))
    assert ", toy-library-gpu 1.2.3, " in machine_facts(torch.device("cpu"))["software"]


def test_versions_are_told() -> None:
    facts = machine_facts(torch.device("cpu"))
    assert f"torch {torch.__version__.partition('+')[0]}" in facts["software"]
    assert "GPU" not in facts and len(facts["processor"]) > len(", 1 cores usable")
    assert is_installed("torch") and not is_installed("no_such_module")
