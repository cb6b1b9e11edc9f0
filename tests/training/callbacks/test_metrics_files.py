"""metrics.csv and metrics.jsonl whatever happens to them."""

import csv
import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.training import train
from detkit.training.callbacks.meter import TrainMeter
from detkit.training.callbacks.metrics_files import MetricsLog, MetricsTable
from detkit.training.run.failed_writes import FailedWrites
from tests.helpers.toy import toy_parts


class Progress:
    """What the files ask of a trainer."""

    log_every_n_steps = 1

    def __init__(self, epoch: int, step: int, **numbers: float) -> None:
        self.current_epoch, self.global_step, self.callback_metrics = epoch, step, numbers
        self.optimizers = [type("Optimizer", (), {"param_groups": [{"lr": 0.5}]})]


def meter_with(means: dict[str, float]) -> TrainMeter:
    meter = TrainMeter()
    meter.means = means
    meter.terms = {name: torch.tensor(value) for name, value in means.items()}
    return meter


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def write_epochs(path: Path, epochs: range, numbers: dict[str, float]) -> FailedWrites:
    failures = FailedWrites()
    written: Any = MetricsTable(path, meter_with({"cls": 0.25}), failures)
    written.on_train_start(Progress(epochs.start, epochs.start * 10), None)
    for epoch in epochs:
        progress = Progress(epoch, (epoch + 1) * 10, **numbers)
        written.on_validation_end(progress, None)
        written.on_train_epoch_end(progress, None)
    return failures


def test_a_resumed_run_appends_and_repeats_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    write_epochs(path, range(3), {"val/AP": 0.125})
    write_epochs(path, range(1, 4), {"val/AP": 0.5})
    assert [(row["epoch"], row["step"], float(row["val/AP"])) for row in rows(path)] == [
        ("1", "10", 0.125),
        ("2", "20", 0.5),
        ("3", "30", 0.5),
        ("4", "40", 0.5),
    ]
    assert path.read_text().startswith("epoch,step,train/cls,lr,val/AP\n1,10,0.250000,0.500000,0.125000\n")


def test_new_columns_join_later(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    write_epochs(path, range(1), {})
    write_epochs(path, range(1, 2), {"val/AP": 0.5})
    assert [row["val/AP"] for row in rows(path)] == ["", "0.500000"]


@pytest.mark.parametrize("cut", [1, 3, 25])
def test_a_row_that_a_kill_has_cut_is_dropped(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "metrics.csv"
    write_epochs(path, range(2), {"val/AP": 0.5})
    path.write_text(path.read_text()[:-cut])
    write_epochs(path, range(1, 2), {"val/AP": 0.75})
    assert [row["val/AP"] for row in rows(path)] == ["0.500000", "0.750000"]


def test_a_table_that_cannot_be_written_is_noted_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "metrics.csv"
    failures = write_epochs(path, range(1), {"val/AP": 0.5})
    assert failures.count == 1 and f"{path}: cannot be written: No such file or directory" in failures.last


def log_of(path: Path | None, failures: FailedWrites | None = None) -> Any:
    return MetricsLog(path, meter_with({"cls": 0.25, "box": 0.5}), failures or FailedWrites())


def write_steps(path: Path, steps: range) -> None:
    log = log_of(path)
    log.on_train_start(Progress(0, steps.start), None)
    for step in steps:
        log.on_train_batch_start(Progress(0, step), None, None, 0)
        log.on_train_batch_end(Progress(0, step + 1), None, None, None, 0)
    log.on_save_checkpoint(Progress(0, steps.stop), None, {})


def events_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_steps_are_logged_once_and_events_stay(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_steps(path, range(4))
    log_of(path).event("signal", 4, {"signal": "SIGTERM"})
    write_steps(path, range(2, 5))
    found = [(row["kind"], row["step"]) for row in events_of(path)]
    assert found == [("step", 1), ("step", 2), ("event", 4), ("event", 2), ("step", 3), ("step", 4), ("step", 5)]
    step, event, resumed = (events_of(path)[i] for i in (0, 2, 3))
    assert step.keys() == {
        "time",
        "kind",
        "step",
        "epoch",
        "lr",
        "images_per_s",
        "train/cls",
        "train/box",
        "train/loss",
    }
    assert (step["lr"], step["train/cls"], step["train/loss"], step["epoch"]) == (0.5, 0.25, 0.75, 1)
    assert (event["event"], event["signal"], resumed["event"]) == ("signal", "SIGTERM", "resumed")


@pytest.mark.parametrize("cut", [1, 30])
def test_a_line_that_a_kill_has_cut_is_mended(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "metrics.jsonl"
    write_steps(path, range(3))
    path.write_text(path.read_text()[:-cut])
    write_steps(path, range(2, 4))
    assert [row["step"] for row in events_of(path) if row["kind"] == "step"] == [1, 2, 3, 4]


def test_a_number_that_json_does_not_have_is_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log_of(path).event("strange", 1, {"value": float("nan"), "many": [1.0, float("-inf")]})
    [row] = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    assert row["value"] is None and row["many"] == [1.0, None]


def test_another_rank_writes_nothing(tmp_path: Path) -> None:
    log_of(None).event("resumed", 1)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 600 bytes, which is what a full disk does to a line."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    failures = FailedWrites()
    log = log_of(tmp_path / "metrics.jsonl", failures)
    for step in range(10):
        log.event("long", step, {"text": "x" * 50})
    written = events_of(tmp_path / "metrics.jsonl")
    assert 3 <= len(written) < 10 and failures.count == 10 - len(written)
    assert "metrics.jsonl: cannot be written" in failures.last


def test_files_of_a_run(tmp_path: Path) -> None:
    """Every logged step, every epoch; the epochs are those of metrics.csv."""
    folder = train(toy_parts(tmp_path, epochs=2, trainer={"log_every_n_steps": 4})).folder
    written = events_of(folder / "metrics.jsonl")
    assert [(row["kind"], row["step"]) for row in written] == [
        ("step", 4),
        ("epoch", 6),
        ("step", 8),
        ("step", 12),
        ("epoch", 12),
    ]
    epochs = [row for row in written if row["kind"] == "epoch"]
    for row, epoch in zip(rows(folder / "metrics.csv"), epochs, strict=True):
        assert all(float(value) == pytest.approx(epoch[name], abs=1e-6) for name, value in row.items())
        assert epoch["images_per_s"] > 0 and epoch["seconds"] > 0
        assert "images_per_s" not in row


@pytest.mark.parametrize(
    ("stored", "sums"),
    [
        ({"sums_of_ranks": [[1.0, 2.0], [3.0, 4.0]]}, [4.0, 6.0]),  # of two ranks, gone on with by one
        ({"sums_of_ranks": [[1.0, 2.0]]}, [1.0, 2.0]),
        ({"sums": [1.0, 2.0]}, [1.0, 2.0]),  # as older files have it
        ({"sums_of_ranks": [None, None]}, None),
        ({"sums": None}, None),
    ],
)
def test_an_epoch_goes_on_with_the_sums_of_all_ranks(stored: dict[str, Any], sums: list[float] | None) -> None:
    meter = TrainMeter()
    meter.load_state_dict({"names": ["cls"], **stored})
    assert meter.state_dict() == {"names": ["cls"], "sums_of_ranks": [sums]}
