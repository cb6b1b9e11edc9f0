"""ONNX Runtime runs a file where the detector is; a build for GPUs is played by what its sessions say."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import detkit
from detkit.errors import CheckpointError
from detkit.inference import runtimes
from detkit.inference.exported_detector import ExportedModel
from tests.helpers.small_onnx import write

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
Asked = list[list[Any]]


def play_gpu(monkeypatch: pytest.MonkeyPatch, *, loads: bool) -> Asked:
    """A build with CUDA, whose libraries load or do not; what sessions are asked for comes in the list."""
    asked: Asked = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, path: Path, options: Any, providers: list[Any]) -> None:
            super().__init__(path, options, providers=[CPU])
            asked.append(providers)

        def get_providers(self) -> list[str]:
            return [name for name in (CUDA, CPU) if loads or name == CPU]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return asked


@pytest.mark.parametrize(
    ("device", "providers"),
    [
        ("cpu", [CPU]),
        ("cuda", [(CUDA, {"device_id": 0}), CPU]),
        ("cuda:1", [(CUDA, {"device_id": 1}), CPU]),
        ("mps", [CPU]),
    ],
)
def test_a_file_is_run_where_its_detector_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, providers: list[Any]
) -> None:
    asked = play_gpu(monkeypatch, loads=True)
    write(tmp_path / "a.onnx")
    runtimes.read_metadata(tmp_path / "a.onnx")
    boxes, _ = runtimes.open_program(tmp_path / "a.onnx", device)(np.zeros((2, 3, 32, 32), np.float32))
    assert boxes.shape == (2, 1, 4)
    assert asked == [[CPU], providers]  # to read what the file says of itself takes no GPU


def test_a_detector_that_is_moved_takes_its_program_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no program can be: nothing else is there without a GPU."""
    opened: list[str] = []
    monkeypatch.setattr(runtimes, "open_program", lambda _, device, **__: opened.append(device) or len)
    predictor = detkit.load(write(tmp_path / "a.onnx"))
    assert isinstance(predictor.detector, ExportedModel)
    for device in ("cpu", "cpu", "meta"):
        assert predictor.to(device).detector.program is len
    assert opened == ["cpu", "meta"]
    assert not predictor.detector.state_dict()


def test_a_gpu_that_cannot_be_used_is_no_processor_in_disguise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_gpu(monkeypatch, loads=False)
    with pytest.raises(CheckpointError, match=r"a\.onnx: ONNX Runtime cannot use cuda:1: .*; device=cpu runs it"):
        runtimes.open_program(write(tmp_path / "a.onnx"), "cuda:1")


def test_a_build_without_gpu_says_that_it_runs_on_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    write(tmp_path / "a.onnx")
    runtimes.open_program(tmp_path / "a.onnx", "cpu")
    assert not caplog.messages
    run = runtimes.open_program(tmp_path / "a.onnx", "cuda:0")
    assert len(run(np.zeros((1, 3, 32, 32), np.float32))) == 2
    [said] = caplog.messages
    assert "a.onnx: runs on the CPU, not on cuda:0: this build of ONNX Runtime has no GPU support" in said


def test_a_library_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        CheckpointError, match=r'a\.onnx: needs ONNX Runtime: in the clone, pip install -e "\.\[export\]"'
    ):
        detkit.load(write(tmp_path / "a.onnx"))
