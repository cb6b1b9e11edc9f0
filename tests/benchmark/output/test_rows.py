"""What the tables say of rows that were measured, and of those that were not."""

import json
from pathlib import Path

import pytest

from detkit.benchmark.output.picture import draw
from detkit.benchmark.output.rows import Row, phase_table, speed_table
from tests.helpers.benchmark_rows import SETTING, row


def failed(reason: str) -> Row:
    return Row("compile", "torch compile", Path("detector.safetensors"), SETTING, reason)


def test_speed_beside_eager() -> None:
    fast, base = row("bf16", 17), row("eager", 37)
    fast.numbers = {"AP": 0.61234}
    table = speed_table(SETTING, [fast, base])
    assert table.title == "640 x 384 pixels, batch 1, 2 threads"
    by_name = dict(zip(table.headings, table.lines[0], strict=True))
    assert table.lines[0][0] == "torch bf16"
    assert by_name["latency ms"] == "20.0" and by_name["p95"] == "20.0"
    assert by_name["images/s"] == "50.0"
    assert by_name["x eager"] == "2.00" and table.lines[1][4] == "1.00"
    assert by_name["cores"] == "1.90"
    assert (by_name["memory MB"], by_name["file MB"], by_name["AP"]) == ("700", "9.1", "0.6123")
    assert table.lines[1][8] == "-"  # no AP of this one


def test_images_of_a_batch_count() -> None:
    table = speed_table(SETTING, [row("eager", 37, SETTING._replace(batch_size=8))])
    assert table.lines[0][3] == "200.0"  # 8 in 40 ms


def test_without_eager_there_is_no_ratio() -> None:
    assert speed_table(SETTING, [row("bf16", 17)]).lines[0][4] == "-"


def test_a_row_that_failed_says_why() -> None:
    halfway = row("onnx", 17)
    halfway.reason = "its process was killed"
    table = speed_table(SETTING, [failed("no C++ compiler"), halfway])
    assert table.lines[0] == ["torch compile", *["-"] * 8, "not measured: no C++ compiler"]
    assert table.lines[1][1] == "20.0" and table.lines[1][-1] == "stopped: its process was killed"
    assert "no C++ compiler" not in str(phase_table(SETTING, [failed("no C++ compiler")]).lines)


def test_memory_that_nobody_knows() -> None:
    made = row("onnx", 37)
    del made.costs["memory_mb"]
    assert speed_table(SETTING, [made]).lines[0][6] == "-"


def test_where_the_time_goes() -> None:
    [line] = phase_table(SETTING, [row("eager", 18)]).lines
    assert line == ["torch eager", "2.0", "1.0", "18.0", "3.0", "24.0", "24.0", "25.0 %", ""]


def test_what_a_file_does_inside_is_told_where_its_phases_are() -> None:
    made = row("onnx", 18)
    made.inside = "decoding is in the network"
    assert phase_table(SETTING, [made]).lines[0][-1] == "decoding is in the network"
    assert made.to_json()["inside"] == "decoding is in the network"


def test_markdown_is_a_table_whatever_a_reason_holds() -> None:
    lines = speed_table(SETTING, [failed("a | b")]).to_markdown().splitlines()
    assert lines[0] == "**640 x 384 pixels, batch 1, 2 threads**"
    assert lines[3].startswith("| --- | ---: |")
    assert {line.replace("\\|", "").count("|") for line in lines[2:]} == {11}


def test_json_holds_every_batch() -> None:
    found = json.loads(json.dumps(row("eager", 37).to_json()))
    assert found["threads"] == 2 and found["image_hw"] == [384, 640] and found["batch_size"] == 1
    assert found["latency_ms"] == pytest.approx(40)
    assert found["looks"] == 4 and [len(of_round) for of_round in found["rounds"]] == [2, 2]
    assert found["rounds"][0][0][2] == pytest.approx(0.037)
    assert json.loads(json.dumps(failed("why").to_json()))["reason"] == "why"


def test_pictures_with_and_without_accuracy(tmp_path: Path) -> None:
    """Both are drawn; what they show differs."""
    rows = [row("eager", 37), row("bf16", 17, SETTING), row("onnx", 9, SETTING._replace(threads=1)), failed("why")]
    draw(rows, tmp_path / "speed.png")
    rows[0].numbers = {"AP": 0.6}
    draw(rows, tmp_path / "accuracy.png")
    speed, accuracy = (tmp_path / name for name in ("speed.png", "accuracy.png"))
    assert speed.read_bytes()[1:4] == accuracy.read_bytes()[1:4] == b"PNG"
    assert speed.read_bytes() != accuracy.read_bytes()


def test_a_picture_where_the_smallest_batch_has_no_accuracy_yet(tmp_path: Path) -> None:
    """Stopped in the second of two settings: speed is shown."""
    rows = [row("eager", 37, SETTING._replace(batch_size=8)), row("eager", 17, SETTING._replace(image_hw=(320, 320)))]
    draw(rows, tmp_path / "speed.png")
    rows[0].numbers = {"AP": 0.6}
    draw(rows, tmp_path / "stopped.png")
    assert (tmp_path / "stopped.png").read_bytes() == (tmp_path / "speed.png").read_bytes()
