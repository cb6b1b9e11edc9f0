"""scripts/benchmark.py: what it measures is the detector, in every runtime; what goes wrong is one line."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from detkit.exporting.formats import writers as write_formats
from detkit.inference import read_stored
from detkit.inference.runtimes.signature import Signature
from tests.helpers.full_images import write_split
from tests.helpers.tiny_detectors import write_tiny_detector
from tests.helpers.warm_scripts import DEFAULTS, ROOT, run_script

QUICK = ("warmup=1", "repeat=2", "least_s=0", "batch_size=1", "threads=1")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_detector(tmp_path_factory.mktemp("run"))


def test_rows_beside_each_other(checkpoint: Path, tmp_path: Path) -> None:
    """One that cannot be measured says why, and hinders no other: an exported detector of another size."""
    exported = write_onnx(checkpoint, tmp_path)
    words = [f"checkpoint={checkpoint.parent}", f"also={exported}", "image_hw=96", "runtimes=eager", *QUICK]
    done = run_script(["scripts/benchmark.py", *words, f"out={tmp_path / 'out'}"])
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    eager, other = document["rows"]
    assert (eager["reason"], eager["image_hw"], eager["batch_size"], eager["threads"]) == ("", [96, 96], 1, 1)
    assert [len(looks) for looks in eager["rounds"]] == [1] * 5
    assert eager["whole_ms"] >= eager["latency_ms"] > eager["network_ms"] > 0
    assert eager["memory_mb"] > eager["imports_mb"] > 50
    assert eager["file_mb"] == pytest.approx(checkpoint.stat().st_size / 1e6)
    assert other["rounds"] == [] and other["runtime"] == str(exported)
    assert other["reason"].endswith(
        "takes images of 64 x 64 pixels alone; got 96 x 96. An export with dynamic=size takes all multiples of 32"
    )
    markdown = (tmp_path / "out" / "benchmark.md").read_text()
    assert f"| torch eager | {eager['latency_ms']:.1f} |" in markdown
    assert f"not measured: {other['reason']}" in markdown
    assert (tmp_path / "out" / "benchmark.png").read_bytes()[1:4] == b"PNG"
    assert f"results: {tmp_path / 'out'}" in done.stdout
    assert f"{exported.name}: not measured: " in done.stdout and "96 x 96 pixels, batch 1, 1 thread" in done.stdout


def write_onnx(checkpoint: Path, folder: Path) -> Path:
    """A file that says of itself that it is an exported detector for 64 x 64 pixels; its graph is never run."""
    shape = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, 64, 64])
    node = onnx.helper.make_node("Identity", ["images"], ["boxes"])
    result = onnx.helper.make_tensor_value_info("boxes", onnx.TensorProto.FLOAT, [1, 3, 64, 64])
    graph = onnx.helper.make_graph([node], "identity", [shape], [result])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    signature = Signature("raw", ("boxes",), False, "none", (64, 64), 32, "distances")
    noted = {**read_stored(checkpoint).noted, "detkit_version": "0", "signature": signature._asdict()}
    write_formats.write_onnx(folder / "other.onnx", model, noted)
    return folder / "other.onnx"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["checkpoint=/no/such/run"], 66, "checkpoint=/no/such/run: there is no such file"),
        (["runtimes=tensorrt"], 78, "runtimes: must be some of .*; got 'tensorrt'"),
        (["image_hw=100"], 78, "image_hw=100: must be multiples of 32"),
        (["threads=4096"], 78, r"threads=4096: must be at most \d+, the cores"),
        (["score_threshold=0"], 78, r"score_threshold must lie in \[0\.001, 1\]; got 0"),
        (["also={data}"], 78, "also=.*: must be an exported detector"),
        (["also=/no/model.onnx"], 66, "also=/no/model.onnx: there is no such file"),
        (["data.root=/no/data"], 65, "/no/data"),
        (["data.root={data}", "split=test"], 65, "there is no test split under .*; there is val"),
        (["data.rot=/data"], 78, "data.rot: CocoDataModule has no argument 'rot'; did you mean 'root'"),
        (["out={data}"], 65, "out=.*: exists already"),
        pytest.param(
            ["device=cuda"],
            78,
            "device=cuda: cannot be used: .*; device=cpu works",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="it can be used here"),
        ),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    checkpoint: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    write_split(tmp_path / "data", "val")
    given = {"checkpoint": f"checkpoint={checkpoint}", "out": f"out={tmp_path / 'out'}"}
    given |= {word.partition("=")[0]: word.format(data=tmp_path / "data") for word in arguments}
    done = run_script(["scripts/benchmark.py", *given.values()])
    assert done.returncode == code, done.stderr
    assert re.search(rf"^error: (.|\n)*{message}", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_what_was_measured_is_kept_when_it_is_stopped(checkpoint: Path, tmp_path: Path) -> None:
    """Ctrl-C in a measurement that would take hours."""
    out = tmp_path / "out"
    words = [f"checkpoint={checkpoint}", "runtimes=eager", f"out={out}", "threads=1", "batch_size=1,2"]
    limits = ["warmup=1", "repeat=1000000", "least_s=0", "most_s=3000"]
    command = [sys.executable, "scripts/benchmark.py", *words, *limits]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **DEFAULTS}, stdout=subprocess.PIPE) as process:
        while not (out / "log.txt").exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    document: dict[str, Any] = json.loads((out / "benchmark.json").read_text())
    assert [row["batch_size"] for row in document["rows"]] == [1]
    assert any("stopped before the end" in note for note in document["notes"])
    assert b"stopped before the end" in output
