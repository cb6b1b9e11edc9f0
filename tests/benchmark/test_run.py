"""How the measurements go on, by workers that answer without measuring."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from detkit.benchmark.engines import RUNTIMES
from detkit.benchmark.measure.accuracy import Accuracy
from detkit.benchmark.measure.stopwatch import BatchTiming
from detkit.benchmark.measure.worker import Round
from detkit.benchmark.measure.worker_process import WorkerFailedError, WorkerProcess
from detkit.benchmark.options import BenchmarkOptions
from detkit.benchmark.run import Benchmark
from detkit.benchmark.selection import BenchmarkPlan, Candidate, Setting
from detkit.errors import DetkitError
from detkit.inference import StoredDetector

Run = Callable[..., tuple[list[dict[str, Any]], list[Any]]]


class Answering(WorkerProcess):
    """Answers without a process and without measuring.

    Args:
        asked: takes the name of each method and its arguments.
        fails: words; a question with one of them fails.
    """

    def __init__(self, asked: list[tuple[str, dict[str, Any]]], fails: tuple[str, ...]) -> None:
        self.asked = asked
        self.fails = fails

    def ask(self, method: Callable[..., Any], *_: Any, **kwargs: Any) -> Any:
        name = method.__name__
        self.asked.append((name, kwargs))
        if any(word in f"{name} {kwargs}" for word in self.fails):
            raise WorkerFailedError("it cannot")
        costs = {"first_s": 1, "file_mb": 2, "imports_mb": 3}
        answers = {"open": costs, "repeat": Round([BatchTiming(*[0.1] * 5)], 4), "accuracy": Accuracy({}, 1)}
        return answers.get(name)

    def close(self) -> None:
        pass


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Measure in some runtimes with workers that cannot do what some words are in; its rows, and what was asked."""

    def measure(names: list[str], *fails: str, batch_size: int = 1) -> tuple[list[dict[str, Any]], list[Any]]:
        asked: list[tuple[str, dict[str, Any]]] = []
        plan = plan_of(names, batch_size, tmp_path / "out")
        Benchmark(plan, tmp_path, lambda *_: Answering(asked, fails)).run(Console(file=io.StringIO()))
        rows = json.loads((tmp_path / "out" / "benchmark.json").read_text())["rows"]
        return rows, asked

    (tmp_path / "out").mkdir()
    return measure


def plan_of(names: list[str], batch_size: int, folder: Path) -> BenchmarkPlan:
    path = Path("detector.safetensors")
    stored = StoredDetector({}, {}, ("cat",), (64, 64), path)
    candidates = [
        Candidate(name, RUNTIMES[name].title, RUNTIMES[name], None if RUNTIMES[name].suffix else path, "")
        for name in names
    ]
    options, settings = BenchmarkOptions("a", batch_size=(batch_size,)), [Setting(1, (64, 64), batch_size)]
    return BenchmarkPlan(
        options, stored, [], torch.device("cpu"), settings, candidates, [], (64, 64), [Path("a.png")], folder
    )


def test_a_graph_that_cannot_be_made_is_the_reason_of_all_that_need_it(run: Run) -> None:
    rows, asked = run(["eager", "onnx", "openvino"], "'suffix': '.onnx'")
    assert [row["reason"] for row in rows] == ["", "it cannot", "it cannot"]
    assert [name for name, _ in asked].count("convert") == 1


def test_a_conversion_that_fails_hinders_no_other(run: Run) -> None:
    rows, _ = run(["onnx", "openvino", "openvino_bf16"], "'suffix': '.xml'")
    assert [row["reason"] for row in rows] == ["", "it cannot", "it cannot"]
    assert [len(row["rounds"]) for row in rows] == [5, 0, 0]


@pytest.mark.parametrize(
    ("names", "suffixes"),
    [(["eager"], []), (["eager", "onnx"], [".onnx"]), (["onnx", "openvino", "openvino_bf16"], [".onnx", ".xml"])],
)
def test_only_what_is_asked_for_is_converted(run: Run, names: list[str], suffixes: list[str]) -> None:
    _, asked = run(names, batch_size=4)
    conversions = [about for name, about in asked if name == "convert"]
    assert sorted(about["suffix"] for about in conversions) == suffixes
    assert all(about["batch_sizes"] == (4,) for about in conversions)


def test_nothing_measured_is_an_error(run: Run, tmp_path: Path) -> None:
    said = rf"^nothing was measured: torch eager: it cannot; ONNX Runtime: it cannot\. {tmp_path}/out/log\.txt has more"
    with pytest.raises(DetkitError, match=said):
        run(["eager", "onnx"], "open")
    assert len(json.loads((tmp_path / "out" / "benchmark.json").read_text())["rows"]) == 2


def test_one_row_is_enough(run: Run, tmp_path: Path) -> None:
    rows, _ = run(["eager", "onnx"], "model_64x64.onnx")
    assert [row["reason"] for row in rows] == ["", "it cannot"]
    assert f"errors at length: {tmp_path}/out/log.txt" in (tmp_path / "out" / "benchmark.md").read_text()
