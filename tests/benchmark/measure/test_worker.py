"""What a worker opens is the detector, in each runtime: the same boxes, and evaluate's AP."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import torch

from detkit.benchmark.engines import EXPORTED, open_predictor, why_unavailable
from detkit.benchmark.measure import stopwatch
from detkit.benchmark.measure.converted import converted_path
from detkit.benchmark.measure.worker import Worker
from detkit.inference import load
from tests.helpers.full_images import printed, write_split
from tests.helpers.tiny_detectors import write_middle, write_tiny_detector
from tests.helpers.warm_scripts import run_script

ABOUT: dict[str, Any] = {
    "device": "cpu",
    "trusted": [],
    "image_hw": (64, 64),
    "batch_size": 1,
    "warmup": 1,
    "score_threshold": 0.25,
}
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "openvino_bf16": ".xml"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained detector whose boxes are so large that they find objects that fill the image."""
    return write_tiny_detector(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_split(root, "val")
    return root


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """In this process: what it opens is what counts, not where."""
    before = cv2.getNumThreads()
    yield Worker(1)
    cv2.setNumThreads(before)


@pytest.fixture(scope="module")
def files(worker: Worker, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    about: dict[str, Any] = {"checkpoint": checkpoint, "folder": folder, "image_hw": (64, 64), "trusted": []}
    worker.convert(**about, suffix=".onnx", batch_sizes=(2,))
    assert [path.name for path in folder.iterdir()] == ["model_64x64.onnx"]
    worker.convert(**about, suffix=".xml", batch_sizes=(1, 3, 8))
    assert sorted(path.name for path in folder.glob("*.xml")) == ["model_64x64.xml", "model_64x64_single.xml"]
    return folder


@pytest.mark.parametrize("name", ["channels_last", "bf16", "onnx", "openvino", "openvino_bf16"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_runtime_is_the_detector(
    worker: Worker, checkpoint: Path, data: Path, files: Path, name: str, batch_size: int
) -> None:
    """Raw boxes and scores before any is chosen: to a thousandth in float32, to a bfloat16's 2^-8 else."""
    path = converted_path(files, (64, 64), batch_size, SUFFIXES[name]) if name in SUFFIXES else checkpoint
    images = sorted((data / "val").iterdir())[:batch_size]
    about = {**ABOUT, "batch_size": batch_size, "files": images, "warmup": 2}
    answer = worker.open(runtime=name, path=path, **about)
    bin_bytes = path.with_suffix(".bin").stat().st_size if path.suffix == ".xml" else 0
    assert answer["file_mb"] == pytest.approx((path.stat().st_size + bin_bytes) / 1e6)
    assert answer["first_s"] > 0
    timings, memory_mb = worker.repeat(number=2, least_s=0, most_s=10)
    assert len(timings) == 2 and all(min(timing[:4]) > 0 for timing in timings)
    assert memory_mb is not None and memory_mb >= answer["imports_mb"] > 50
    batch = torch.rand(batch_size, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    eager = load(checkpoint)
    with torch.inference_mode():
        expected = eager.decode.dense(eager.detector(batch))  # pyright: ignore[reportAttributeAccessIssue]
        found = worker.predictor.detector(batch)
        if name not in SUFFIXES:
            found = eager.decode.dense(found)  # pyright: ignore[reportAttributeAccessIssue]
    is_bf16 = name.endswith("bf16")
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=4e-3 if is_bf16 else 1e-5)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=1 if is_bf16 else 1e-3)
    assert torch.equal(found.scores, expected.scores) <= (not is_bf16)  # bfloat16 is seen in the scores


@pytest.mark.parametrize("name", ["eager", "onnx"])
def test_accuracy_is_that_of_evaluate(worker: Worker, checkpoint: Path, data: Path, files: Path, name: str) -> None:
    path = converted_path(files, (64, 64), 2, ".onnx") if name == "onnx" else checkpoint
    worker.open(runtime=name, path=path, files=[data / "val" / "0.png"], **ABOUT)
    asked: dict[str, Any] = {"data_overrides": [("data.root", str(data))], "split": "val", "trusted": []}
    found = worker.accuracy(**asked, limit=None, batch_size=2)
    expected = evaluated(checkpoint, data)
    assert found.num_images == 5 and expected["AP"] > 0.05
    for number in ("AP", "AP50", "AP75", "AR_100"):
        assert found.numbers[number] == pytest.approx(expected[number], abs=6e-5)
    assert worker.accuracy(**asked, limit=3, batch_size=2).num_images == 3


def test_accuracy_is_that_of_the_file_that_was_opened(
    worker: Worker, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    """One beside the detector has its own resize, more classes and another order."""
    first = write_middle(checkpoint, tmp_path / "a", "letterbox", {"dog": 0.9, "cat": 0.5})
    other = write_middle(checkpoint, tmp_path / "b", "squash", {"cat": 0.5, "bird": 0.9, "dog": 0.5})
    found = []
    for path in (first, other):
        worker.open(runtime=str(path), path=path, files=[data / "val" / "0.png"], **ABOUT)
        asked: dict[str, Any] = {
            "data_overrides": [("data.root", str(data))],
            "split": "val",
            "trusted": [],
            "limit": None,
            "batch_size": 2,
        }
        found.append(worker.accuracy(**asked).numbers["AP"])
    expected = [evaluated(path, data)["AP"] for path in (first, other)]
    assert found == pytest.approx(expected, abs=6e-5)
    assert min(expected) > 0.05 and abs(expected[0] - expected[1]) > 0.05


def evaluated(checkpoint: Path, data: Path) -> dict[str, float]:
    words = [f"checkpoint={checkpoint}", f"data.root={data}", "trainer.precision=32-true", "trainer.accelerator=cpu"]
    return printed(run_script(["scripts/evaluate.py", *words]).stdout)


def test_looks_go_through_all_files(
    worker: Worker, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_middle(checkpoint, tmp_path / "a", "squash", {"dog": 0.9})
    seen: list[str] = []

    def read(file: Path) -> np.ndarray:
        seen.append(file.name)
        return np.zeros((20, 40, 3), np.uint8)

    monkeypatch.setattr(stopwatch, "decode_image", read)
    about = {**ABOUT, "batch_size": 2, "warmup": 2}
    worker.open(runtime=str(path), path=path, files=[Path("a"), Path("b"), Path("c")], **about)
    assert "".join(seen) == "abca"
    worker.repeat(number=2, least_s=0, most_s=9)
    assert "".join(seen) == "abcabcabca"  # one look that is not counted, and two


def test_a_file_on_a_gpu_gets_its_images_from_the_cpu(worker: Worker, checkpoint: Path, tmp_path: Path) -> None:
    """Where there is no GPU, another device that is none: what was moved there, and what was not."""
    path = write_middle(checkpoint, tmp_path / "a", "squash", {"dog": 0.9})
    predictor = open_predictor(EXPORTED, path, "meta", [])
    assert predictor.device.type == "cpu"
    assert predictor.detector._device_marker.device.type == "meta"
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), np.zeros((20, 40, 3), np.uint8))
    worker.open(runtime=str(path), path=path, files=[image], **ABOUT)
    once = {"number": 1, "least_s": 0, "most_s": 9}
    assert (worker.repeat(**once).memory_mb or 0) > 50
    worker.device = torch.device("cuda")
    assert worker.repeat(**once).memory_mb is None  # torch does not know what others take of a GPU


@pytest.mark.parametrize(
    ("name", "device", "reason"),
    [
        ("a.xml", "cuda", r"^\.xml files do not run on cuda; device=cpu measures them"),
        ("a.onnx", "mps", r"^\.onnx files do not run on mps; device=cpu"),
        ("a.onnx", "cuda", "^this build of ONNX Runtime has no GPU support; .*onnxruntime-gpu"),
        ("a.onnx", "cpu", "^$"),
        ("a.safetensors", "cuda", "^$"),
    ],
)
def test_files_that_a_device_cannot_run(name: str, device: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert re.search(reason, why_unavailable(EXPORTED, Path(name), torch.device(device)))
