"""What is said beside the tables: a machine that other programs used, an end before the end, what is not there."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from detkit.benchmark.measure.stopwatch import BatchTiming
from detkit.benchmark.options import BenchmarkOptions
from detkit.benchmark.output.report import report
from detkit.benchmark.output.rows import Row
from detkit.benchmark.selection import BenchmarkPlan
from detkit.errors import StorageError
from detkit.inference import StoredDetector
from tests.helpers.benchmark_rows import SETTING, row


def plan(folder: Path) -> BenchmarkPlan:
    stored = StoredDetector({}, {}, ("cat",), (384, 640), Path("detector.safetensors"))
    left_out = ["left out: OpenVINO: openvino is not installed"]
    cpu = torch.device("cpu")
    return BenchmarkPlan(
        BenchmarkOptions("a"), stored, [], cpu, [SETTING], [], left_out, (384, 640), [Path("a.png")], folder
    )


def said(folder: Path, rows: list[Row], *, is_complete: bool = True, **changed: Any) -> str:
    console = Console(file=io.StringIO(), width=100)
    report(plan(folder)._replace(**changed), rows, {"processor": "a fast one"}, console, is_complete=is_complete)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_quiet_machine_is_not_spoken_of(tmp_path: Path) -> None:
    text = said(tmp_path, [row("eager", 37)])
    assert "processor: a fast one" in text and f"results: {tmp_path}" in text
    assert "left out: OpenVINO: openvino is not installed" in text
    assert "timed on: 1 drawn pictures of 1280 x 960 pixels, batch after batch; no data, no AP" in text
    assert "measure again" not in text and "stopped" not in text
    assert json.loads((tmp_path / "benchmark.json").read_text())["facts"]["processor"] == "a fast one"


def test_what_is_timed_and_what_ap_is_measured_on_are_told_apart(tmp_path: Path) -> None:
    data = {"data_overrides": [("data.root", "somewhere")], "files": [Path("a.png")] * 16}
    text = said(tmp_path, [row("eager", 37)], **data)
    assert "timed on: 16 images, evenly over the val split, batch after batch; AP on all images of it" in text
    text = said(tmp_path, [row("eager", 37)], **data, options=BenchmarkOptions("a", split="test", limit=300))
    assert "evenly over the test split, batch after batch; AP on the first 300 images of it" in text


def test_what_the_words_of_the_tables_leave_out_is_told(tmp_path: Path) -> None:
    text = said(tmp_path, [row("eager", 37)])
    assert "latency: of a batch: network and boxes, without reading and resizing; median, and 95th" in text
    assert "batch that is not counted, and to the end of the last batch, so that slow models take longer" in text
    assert "phases: of batch 1; benchmark.json has those of all" in text


def test_rounds_that_differ_are_told(tmp_path: Path) -> None:
    """40 ms and 80 ms."""
    uneven = row("eager", 37)
    uneven.rounds = [uneven.rounds[0], [BatchTiming(0.002, 0.001, 0.077, 0.003, 0.14)]]
    assert "up to 2.0 times as long as its fastest" in " ".join(said(tmp_path, [uneven]).split())


def test_a_core_that_was_shared_is_told(tmp_path: Path) -> None:
    shared = row("eager", 37, SETTING._replace(threads=1))
    shared.rounds = [[BatchTiming(0.002, 0.001, 0.037, 0.003, 0.037 / 2)]]
    assert "one thread had a core for 50 % of its time only" in " ".join(said(tmp_path, [shared]).split())


def test_an_early_end_is_told(tmp_path: Path) -> None:
    text = said(tmp_path, [row("bf16", 37)], is_complete=False)
    assert "stopped before the end" in text and "torch eager was not among the runtimes" in text


def test_ap_of_another_size_than_that_of_the_training_is_told(tmp_path: Path) -> None:
    note, data = "the detector was trained at 640 x 320 pixels", [("data.root", "somewhere")]
    assert note in said(tmp_path, [row("eager", 37)], data_overrides=data, trained_hw=(320, 640))
    assert note not in said(tmp_path, [row("eager", 37)], trained_hw=(320, 640))
    assert "trained at" not in said(tmp_path, [row("eager", 37)], data_overrides=data)


def test_nothing_measured_has_no_picture(tmp_path: Path) -> None:
    assert "no picture: nothing was measured" in said(tmp_path, [])
    assert not (tmp_path / "benchmark.png").exists()


def test_without_matplotlib_there_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detkit.benchmark.output.report.is_installed", lambda name: name != "matplotlib")
    assert 'matplotlib is not installed: in the clone, pip install -e ".[plot]"' in said(tmp_path, [row("eager", 37)])
    assert not (tmp_path / "benchmark.png").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="gone: cannot be written"):
        said(tmp_path / "gone", [row("eager", 37)])
