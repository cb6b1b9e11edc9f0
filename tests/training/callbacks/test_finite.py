"""Steps that are skipped, exactly; gradients of half precision; what is asked without waiting; several ranks."""

import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from typing_extensions import override

from detkit.checkpoint import latest_checkpoint, read_checkpoint
from detkit.errors import TrainingError
from detkit.training import Muon, Parts, train
from detkit.training.callbacks.finite import NonFinite
from detkit.training.callbacks.norms import check_finite
from tests.helpers import ROOT
from tests.helpers.toy import ToyData, ToyDetector, toy_parts
from tests.reliability.non_finite import AfterStep, BrokenLoss

EVERY_STEP = {"every_n_steps": 1, "keep": 100}


def state_of(folder: Path) -> dict[str, Any]:
    manifest = latest_checkpoint(folder / "checkpoints")
    assert manifest is not None
    return read_checkpoint(manifest.path)


def flat(value: Any, place: str = "") -> dict[str, Any]:
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: item for key, inner in items for name, item in flat(inner, f"{place}.{key}").items()}
    return {place: value.tolist() if isinstance(value, torch.Tensor) else value}


def poisoned(runs: Path, **given: Any) -> Parts:
    return toy_parts(runs, data=ToyData(poison=5), non_finite="skip", checkpoint=EVERY_STEP, **given)


def _press(_: L.Trainer) -> None:
    raise KeyboardInterrupt


def test_a_resumed_run_skips_the_same(tmp_path: Path) -> None:
    """Killed after a skipped step and one before the next: bit for bit the run that was never stopped."""
    whole = train(poisoned(tmp_path / "whole", epochs=2)).folder
    [first, second] = [int(path.stem[5:]) for path in sorted((whole / "non_finite").glob("*.json"))]
    assert first <= 6 < second <= 12
    stop = AfterStep(_press, step=second - 1)
    parts = poisoned(tmp_path / "cut", epochs=2)
    parts.trainer.keywords["callbacks"].append(stop)
    with pytest.raises(SystemExit):
        train(parts)
    cut = train(poisoned(tmp_path / "cut", epochs=2, resume=True)).folder
    assert flat(state_of(cut)["callbacks"]["NonFinite"]) == {".skipped": 2}
    for key in ("state_dict", "current_model_state", "optimizer_states", "callbacks"):
        assert flat(state_of(cut)[key]) == flat(state_of(whole)[key]), key
    assert (cut / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


OPTIMIZERS = {
    "AdamW": functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
    "SGD": functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=0.1, nesterov=True),
    "Muon": functools.partial(Muon, lr=0.01, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_skipped_step_leaves_weights_statistics_and_optimizer_alone(name: str, tmp_path: Path) -> None:
    parts = toy_parts(tmp_path, epochs=1, non_finite="skip", checkpoint=EVERY_STEP)
    parts = parts._replace(
        optimizer=OPTIMIZERS[name], loss=BrokenLoss(lambda terms: terms | {"cls": terms["cls"] * math.nan}, 4)
    )
    folder = train(parts).folder
    third, fourth, fifth = (read_checkpoint(folder / "checkpoints" / f"step-{step:08d}.ckpt") for step in (3, 4, 5))
    moments = [optimizer["state"] for state in (third, fourth, fifth) for optimizer in state["optimizer_states"]]
    assert (
        flat(third["current_model_state"]) == flat(fourth["current_model_state"]) != flat(fifth["current_model_state"])
    )
    assert flat(moments[0]) == flat(moments[1]) != flat(moments[2])
    assert fourth["global_step"] == 4 and fourth["lr_schedulers"][0]["last_epoch"] == 4
    assert (
        sum(row["kind"] == "event" for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())) == 1
    )


def test_too_many_skipped_steps_end_the_run(tmp_path: Path) -> None:
    parts = poisoned(tmp_path, max_non_finite=1)
    with pytest.raises(
        TrainingError, match=r"^2 steps were not finite, and max_non_finite is 1\. The last: the loss is"
    ):
        train(parts)


def test_one_bad_batch_of_an_accumulated_step_skips_the_step(tmp_path: Path) -> None:
    parts = toy_parts(
        tmp_path, epochs=1, non_finite="skip", checkpoint=EVERY_STEP, trainer={"accumulate_grad_batches": 2}
    )
    parts = parts._replace(loss=BrokenLoss(lambda terms: terms | {"cls": terms["cls"] * math.inf}, 3))
    folder = train(parts).folder
    first, second, third = (
        flat(read_checkpoint(folder / "checkpoints" / f"step-{step:08d}.ckpt")["current_model_state"])
        for step in (1, 2, 3)
    )
    assert first == second != third
    assert [path.name for path in (folder / "non_finite").glob("*.json")] == ["step-00000002.json"]


SCALER_SKIPS = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # it skips the first steps


class Scales(L.Callback):
    """Notes the scale of the loss."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        plugin: Any = trainer.precision_plugin
        self.seen.append(plugin.scaler.get_scale())


def half_precision(runs: Path, scale: float, **given: Any) -> tuple[Parts, Scales]:
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    plugins, scales = [MixedPrecision("16-mixed", "cpu", scaler)], Scales()
    parts = toy_parts(runs, epochs=1, trainer={"plugins": plugins, "callbacks": [scales]}, **given)
    return parts, scales


@SCALER_SKIPS
@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_gradients_that_overflow_half_precision_are_the_scalers_business(policy: str, tmp_path: Path) -> None:
    parts, scales = half_precision(tmp_path, 2.0**17, non_finite=policy, checkpoint=EVERY_STEP)
    start = [parameter.detach().clone() for parameter in parts.model.parameters()]
    folder = train(parts).folder
    assert scales.seen[0] == 2.0**16 and len(scales.seen) == 6
    first = weights_after(folder, 1)
    assert all(map(torch.equal, first, start)) and not any(map(torch.equal, weights_after(folder, 6), start))
    assert all(parameter.isfinite().all() for parameter in parts.model.parameters())
    assert state_of(folder)["callbacks"]["NonFinite"] == {"skipped": 0}


def weights_after(folder: Path, step: int) -> list[torch.Tensor]:
    state = read_checkpoint(folder / "checkpoints" / f"step-{step:08d}.ckpt")["state_dict"]
    return [state[f"model.{name}"] for name, _ in ToyDetector().named_parameters()]


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_half_precision_skips_a_loss_that_is_not_finite(wrong: float, tmp_path: Path) -> None:
    """The scaler has seen the gradients before they are removed: it halves its scale and goes on."""
    parts, scales = half_precision(tmp_path, 2.0**10, non_finite="skip", checkpoint=EVERY_STEP)
    parts = parts._replace(loss=BrokenLoss(lambda terms: terms | {"cls": terms["cls"] * wrong}, 4))
    folder = train(parts).folder
    assert scales.seen == [2.0**10] * 3 + [2.0**9] * 3
    third, fourth, fifth = (weights_after(folder, step) for step in (3, 4, 5))
    assert all(map(torch.equal, third, fourth)) and not any(map(torch.equal, fourth, fifth))
    assert state_of(folder)["callbacks"]["NonFinite"] == {"skipped": 1}


@SCALER_SKIPS
def test_half_precision_skips_what_no_scale_can_save_up_to_the_limit(tmp_path: Path) -> None:
    """At a scale of 1 or more it is left to the scaler, below it counts."""
    parts, scales = half_precision(tmp_path, 2.0, non_finite="skip", max_non_finite=2)
    parts = parts._replace(loss=lambda *args: {"cls": (sum_of(*args) * 0).sqrt()})
    with pytest.raises(TrainingError, match=r"^3 steps were not finite, and max_non_finite is 2\. .* in step 5 "):
        train(parts)
    assert scales.seen == [1.0, 0.5, 0.25, 0.125]


@SCALER_SKIPS
def test_gradients_that_no_scale_can_save_stop_half_precision_too(tmp_path: Path) -> None:
    parts, scales = half_precision(tmp_path, 2.0)
    parts = parts._replace(loss=lambda *args: {"cls": (sum_of(*args) * 0).sqrt()})
    with pytest.raises(TrainingError, match=r"the gradients are not finite \(.*\) in step 3 \(epoch 1\): cls 0"):
        train(parts)
    assert scales.seen == [1.0, 0.5]


def sum_of(predictions: Any, _: Any) -> torch.Tensor:
    return predictions[0].float().abs().sum() + predictions[1].float().abs().sum()


def test_gradients_that_were_not_waited_for_stop_the_run_before_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: the step is done, and nothing of it is saved or evaluated."""
    start = NonFinite.on_train_start

    def start_as_on_a_gpu(self: NonFinite, *args: Any) -> None:
        start(self, *args)
        self._checks_before_step = False

    monkeypatch.setattr(NonFinite, "on_train_start", start_as_on_a_gpu)
    for step in (3, 6):  # found after the next forward pass; at the end of an epoch before the validation
        parts = toy_parts(tmp_path / str(step), epochs=1, checkpoint={"every_n_steps": 2, "keep": 100})
        wrong = BrokenLoss(lambda terms: terms | {"box": (terms["box"] * 0).sqrt()}, step)
        with pytest.raises(
            TrainingError, match=rf"gradients are not finite \(.*step {step} .*Step {step} was completed; noth"
        ):
            train(parts._replace(loss=wrong))
        (folder,) = (tmp_path / str(step) / "toy").iterdir()
        assert state_of(folder)["global_step"] == (2 if step == 3 else 4)
        assert not (folder / "metrics.csv").exists()


def test_a_state_is_refused_by_the_name_of_its_tensor() -> None:
    check_finite({"optimizer_states": [{"state": {0: {"mean": torch.ones(3), "step": torch.tensor(3)}}}]}, 7)
    check_finite({"large": torch.full((3,), 1e30)}, 7)  # whose norm overflows
    with pytest.raises(
        TrainingError, match=r"^optimizer_states\.0\.mean is not finite after step 7; this state was not saved"
    ):
        check_finite({"optimizer_states": [{"mean": torch.tensor([1.0, torch.inf])}]}, 7)


RANKS = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from detkit.errors import TrainingError
from detkit.training import train
from tests.helpers.toy import ToyData, toy_parts
for policy in ("skip", "stop"):
    data = ToyData(length=16, batch_size=4, poison=5)
    parts = toy_parts(Path(sys.argv[1]) / policy, data=data, epochs=1, non_finite=policy, trainer={"devices": 2})
    try:
        train(parts)
    except TrainingError as error:
        sys.stdout.write(f"TOLD {error}\\n")
    weights = [float(parameter.double().sum()) for parameter in parts.model.parameters()]
    sys.stdout.write(f"WEIGHTS {policy} {weights}\\n")  # in one piece: both ranks write to one pipe, unbuffered
"""


@pytest.mark.long
def test_all_ranks_skip_and_stop_together(tmp_path: Path) -> None:
    """One image on one rank."""
    program = tmp_path / "program.py"
    program.write_text(RANKS)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", program, tmp_path],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line[line.index("WEIGHTS") :] for line in done.stdout.splitlines() if "WEIGHTS" in line]
    assert len(lines) == 4 and len(set(lines)) == 2 and "nan" not in done.stdout.replace("cls nan, box nan", "")
    told = [line[line.index("TOLD") :] for line in done.stdout.splitlines() if "TOLD" in line]
    assert len(told) == 2 and len(set(told)) == 1 and "image ids of rank" in told[0]
    for policy in ("skip", "stop"):
        [report] = (tmp_path / policy).glob("toy/*/non_finite/*.json")
        assert json.loads(report.read_text())["images_not_finite"] == [5]
