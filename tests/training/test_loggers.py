"""metrics.csv whatever happens to it, and W&B that never holds a run up."""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from detkit.training import train
from detkit.training.loggers import MetricsTable, has_wandb_key
from detkit.training.meter import TrainMeter
from tests.training.toy import toy_parts

ROOT = Path(__file__).parents[2]


class Progress:
    """What the table asks of a trainer."""

    def __init__(self, epoch: int, step: int, **numbers: float) -> None:
        self.current_epoch, self.global_step, self.callback_metrics = epoch, step, numbers
        self.optimizers = [type("Optimizer", (), {"param_groups": [{"lr": 0.5}]})]


def table(path: Path, means: dict[str, float] | None = None) -> Any:
    meter = TrainMeter()
    meter.means = means or {"cls": 0.25}
    return MetricsTable(path, meter)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def write_epochs(path: Path, epochs: range, numbers: dict[str, float]) -> None:
    written = table(path)
    written.on_train_start(Progress(epochs.start, epochs.start * 10), None)
    for epoch in epochs:
        progress = Progress(epoch, (epoch + 1) * 10, **numbers)
        written.on_validation_end(progress, None)
        written.on_train_epoch_end(progress, None)


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
    assert path.read_text().startswith("epoch,step,train/cls,lr,images_per_s,val/AP\n1,10,0.250000,0.500000,")


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


def test_key_is_looked_for_where_wandb_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    assert not has_wandb_key()
    netrc.write_text("machine example.org login a password b\n")
    netrc.chmod(0o600)
    assert not has_wandb_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://example.org")
    assert has_wandb_key()
    netrc.write_text("machine api.wandb.ai login a password b\n")
    assert has_wandb_key()
    netrc.write_text("broken {")
    assert not has_wandb_key()
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert has_wandb_key()


def test_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key: W&B keeps its files in the run's folder; a resumed run keeps its id."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    folder = train(toy_parts(tmp_path, epochs=1, wandb="auto")).folder
    run_id = (folder / "wandb_id.txt").read_text()
    train(toy_parts(tmp_path, epochs=2, wandb="auto", resume=True))
    assert (folder / "wandb_id.txt").read_text() == run_id
    runs = list((folder / "wandb").glob(f"offline-run-*-{run_id}"))
    assert len(runs) >= 1 and all(list(run.glob("*.wandb")) for run in runs)
    assert list((folder / "wandb").rglob("*.jpg"))


UNREACHABLE = """
import sys, torch, wandb
from pathlib import Path
from detkit.training import train
from tests.training.toy import toy_parts
train(toy_parts(Path(sys.argv[1]), epochs=2, wandb="online", resume=sys.argv[2] == "resume"))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("key", "resume"), [("", "new"), ("x" * 40, "new"), ("x" * 40, "resume")])
def test_unreachable_server_does_not_hold_a_run_up(tmp_path: Path, key: str, resume: str) -> None:
    """W&B's own patience is 90 seconds and more; ours is 8, and the limit leaves room for a busy machine."""
    seconds = []
    for mode in ("online", "disabled"):
        if resume == "resume":
            folder = train(toy_parts(tmp_path / mode, epochs=1)).folder
            (folder / "wandb_id.txt").write_text("0123456789ab")
        program = UNREACHABLE.replace("online", mode)
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / mode), resume],
            cwd=ROOT,
            env={
                **{name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"},
                "WANDB_API_KEY": key,
                "NETRC": str(tmp_path / "none"),
                "WANDB_BASE_URL": "http://127.0.0.1:9",
                "OMP_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
        assert ("W&B is offline for this run" in done.stderr) == (mode == "online")
    assert seconds[0] - seconds[1] < 45
