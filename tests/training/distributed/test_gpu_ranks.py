"""Two ranks on pretended GPUs, whose process group refuses CPU tensors as NCCL does: all that a run goes through."""

import csv
import json
import signal
from pathlib import Path

import pytest
import torch

from detkit.checkpoint import latest_checkpoint
from detkit.training import train
from tests.helpers.toy import ToyData, toy_parts
from tests.helpers.warm_scripts import run_script
from tests.training.distributed.gpu_ranks import comparable

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU tests/test_on_gpu.py looks at the real one"),
]


def run(scenario: str, folder: Path, code: int = 0) -> list[str]:
    """What each rank says."""
    done = run_script(["-m", "tests.training.distributed.gpu_ranks", scenario, str(folder)])
    assert done.returncode == 0, done.stderr
    said = [(folder / f"{rank}.txt").read_text() for rank in (0, 1)]
    assert json.loads(done.stdout) == [code, code], "\n".join(text[-3000:] for text in said)
    return said


def table(folder: Path) -> list[dict[str, str]]:
    [path] = (folder / "runs").glob("toy/*/metrics.csv")
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """The table of a run that nothing happens to."""
    folder = tmp_path_factory.mktemp("whole")
    run("whole", folder)
    return table(folder)


def test_the_numbers_are_those_of_one_process(whole: list[dict[str, str]], tmp_path: Path) -> None:
    """On the joined batch, on the CPU."""
    train(comparable(toy_parts(tmp_path / "runs", data=ToyData(length=32, batch_size=8), epochs=2)))
    assert [row["step"] for row in whole] == ["4", "8"]
    for ours, expected in zip(whole, table(tmp_path), strict=True):
        numbers = {name: float(value) for name, value in expected.items()}
        assert {name: float(value) for name, value in ours.items()} == pytest.approx(numbers, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("moment", "step"), [("signal in validation", 4), ("signal in step", 3)])
def test_a_signal_to_one_rank_stops_both_and_the_resumed_run_is_the_same(
    whole: list[dict[str, str]], tmp_path: Path, moment: str, step: int
) -> None:
    """Within a validation; and within step 2, of which the other rank hears in step 3."""
    run(moment, tmp_path, code=128 + signal.SIGTERM)
    [checkpoints] = (tmp_path / "runs").glob("toy/*/checkpoints")
    manifest = latest_checkpoint(checkpoints)
    assert manifest is not None and manifest.step == step
    run("resume", tmp_path)
    assert table(tmp_path) == whole


def test_early_stop(tmp_path: Path) -> None:
    run("early stop", tmp_path)
    assert [row["epoch"] for row in table(tmp_path)] == ["1", "2"]


@pytest.mark.parametrize(("policy", "code"), [("skip", 0), ("stop", 1)])
def test_a_batch_that_is_not_finite_on_one_rank(tmp_path: Path, policy: str, code: int) -> None:
    run(policy, tmp_path, code)
    [report] = (tmp_path / "runs").glob("toy/*/non_finite/*.json")
    assert json.loads(report.read_text())["images_not_finite"] == [5]


def test_a_step_sends_one_message_and_waits_for_the_loss_alone(tmp_path: Path) -> None:
    """Gradients apart, which torch's own module sends: whether the loss is finite, with what the ranks ask for."""
    for said in run("count", tmp_path):
        [line] = [line for line in said.splitlines() if line.startswith("{")]
        step = json.loads(line)
        assert step["sent"] == ["all_reduce"]
        assert [what for _, what, _ in step["waits"]] == ["event"]
        assert "training/run/host_copy.py" in step["waits"][0][2]
