"""A whole run on toy parts: what it leaves, that it can be stopped and resumed anywhere, and what it says."""

import shutil
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from typing_extensions import override

from detkit.checkpoint import latest_checkpoint, manifests_in, read_checkpoint, read_detector
from detkit.errors import CheckpointError, RecipeError
from detkit.recipe.read import read_file
from detkit.training import DetectionModule, TrainingResult, train
from detkit.training.run.interrupt import TrainingStopped
from tests.helpers.run_folders import assert_same, copy_of_step, rows, state_of
from tests.helpers.toy import CLASSES, SIZE, ToyData, toy_decode, toy_parts


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 3 epochs with 6 steps each that was never stopped, with a checkpoint at each step."""
    parts = toy_parts(tmp_path_factory.mktemp("runs"), checkpoint={"every_n_steps": 1, "keep": 100})
    return train(parts).folder


def recipe_of(folder: Path) -> dict[str, Any]:
    return read_file(folder / "recipe.yaml").values


def test_files_of_a_run(whole: Path) -> None:
    config = recipe_of(whole)
    assert config["data"]["image_hw"] == [SIZE, SIZE] and config["resume"] is None
    pictures = {path.name for path in (whole / "pictures").iterdir()}
    assert pictures >= {"train_batch_0.jpg", "train_batch_1.jpg", "train_batch_2.jpg", "val_last.jpg"}
    table = rows(whole)
    assert [(row["epoch"], row["step"]) for row in table] == [("1", "6"), ("2", "12"), ("3", "18")]
    assert {"train/cls", "train/box", "train/loss", "lr", "val/AP", "val/AP50", "val/AP75"} <= table[0].keys()
    assert len(manifests_in(whole / "checkpoints")) == 18


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """A run long enough to find the squares."""
    return train(toy_parts(tmp_path_factory.mktemp("learnt"), epochs=12, data=ToyData(length=64, batch_size=8)))


def test_learns(learnt: TrainingResult) -> None:
    """Also says that labels, boxes and the metric fit together."""
    assert learnt.numbers["val/AP50"] > 0.5
    table = rows(learnt.folder)
    assert float(table[-1]["train/loss"]) < float(table[0]["train/loss"]) / 3


def test_keeps_the_latest_and_the_best(learnt: TrainingResult) -> None:
    manifests = manifests_in(learnt.folder / "checkpoints")
    assert [manifest.epoch for manifest in manifests][-2:] == [11, 12] and len(manifests) <= 3
    scores = [float(row["val/AP"]) for row in rows(learnt.folder)]
    assert max(manifest.score or 0 for manifest in manifests) == pytest.approx(max(scores), abs=1e-6)


def test_saved_detector_has_the_ap_of_the_run(learnt: TrainingResult, tmp_path: Path) -> None:
    weights, metadata = read_detector(learnt.folder / "detector.safetensors")
    assert metadata["class_names"] == list(CLASSES) and metadata["category_ids"] == [1, 5, 7]
    assert metadata["image_hw"] == [SIZE, SIZE] and metadata["recipe"]["model"] == {"_target_": "toy"}
    assert metadata["ap"] == learnt.numbers["val/AP"] > 0 and metadata["epoch"] == learnt.epoch
    parts = toy_parts(tmp_path)
    parts.model.load_state_dict(weights)
    metric = parts.metrics(ground_truth=parts.data.ground_truth())
    module = DetectionModule(parts.model, parts.loss, toy_decode, metric, parts.optimizer, parts.scheduler)
    trainer = L.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    [numbers] = trainer.validate(module, datamodule=parts.datamodule, verbose=False)
    assert numbers == learnt.numbers and metric.per_class() == learnt.per_class


@pytest.mark.parametrize("step", [5, 6, 13])
def test_resumed_equals_whole(whole: Path, tmp_path: Path, step: int) -> None:
    folder = copy_of_step(whole, tmp_path, step)
    parts = toy_parts(tmp_path, resume=True, checkpoint={"every_n_steps": 1, "keep": 100})
    assert train(parts).folder == folder
    assert_same(state_of(folder), state_of(whole))
    assert rows(folder) == rows(whole)
    (weights, metadata), (expected, expected_metadata) = (
        read_detector(run / "detector.safetensors") for run in (folder, whole)
    )
    assert_same(weights, expected)
    del metadata["recipe"]["runs_dir"], expected_metadata["recipe"]["runs_dir"]
    assert metadata == expected_metadata


def test_max_steps_resumed_at_the_end_of_an_epoch(tmp_path: Path) -> None:
    """That epoch has ended: its row, its score and its number stay, and max_steps is reached."""
    settings: dict[str, Any] = {"trainer": {"max_steps": 9}, "checkpoint": {"every_n_steps": 1, "keep": 100}}
    folder = train(toy_parts(tmp_path, **settings)).folder
    manifests, table, state = manifests_in(folder / "checkpoints"), rows(folder), state_of(folder)
    for manifest in manifests[6:]:
        manifest.path.unlink()
    train(toy_parts(tmp_path, resume=True, **settings))
    again = manifests_in(folder / "checkpoints")
    assert [(manifest.step, manifest.epoch) for manifest in again][4:] == [(5, 0), (6, 1), (7, 1), (8, 1), (9, 2)]
    assert [manifest.score for manifest in again] == [manifest.score for manifest in manifests] and again[
        5
    ].score is not None
    assert rows(folder) == table and len(table) == 2
    assert_same(state_of(folder)["state_dict"], state["state_dict"])


@pytest.mark.long
@pytest.mark.parametrize("validation_batch", range(4))
@pytest.mark.parametrize("step", [6, 12, 18])
def test_ctrl_c_in_every_validation_batch(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], step: int, validation_batch: int
) -> None:
    test_ctrl_c_saves_and_goes_on(whole, tmp_path, capsys, step, validation_batch)


class StopAfter(L.Callback):
    """Does something, e.g. press Ctrl-C, at a given moment."""

    def __init__(self, press: Any, step: int, validation_batch: int | None = None) -> None:
        self.press = press
        self.step = step
        self.validation_batch = validation_batch

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.validation_batch is None and trainer.global_step == self.step:
            self.press()

    @override
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.global_step == self.step and batch_idx == self.validation_batch:
            self.press()


@pytest.mark.parametrize(("step", "validation_batch"), [(4, None), (6, None), (12, 1)])
def test_ctrl_c_saves_and_goes_on(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], step: int, validation_batch: int | None
) -> None:
    """Within an epoch, at its last step and within its validation; the result is that of the run never stopped."""
    handler, parts = signal.getsignal(signal.SIGINT), toy_parts(tmp_path)
    stop = StopAfter(lambda: signal.raise_signal(signal.SIGINT), step, validation_batch)
    parts.trainer.keywords["callbacks"].append(stop)
    with pytest.raises(SystemExit) as exit_:
        train(parts)
    assert exit_.value.code == 130
    (folder,) = (tmp_path / "toy").iterdir()
    manifest = latest_checkpoint(folder / "checkpoints")
    assert manifest is not None and manifest.step == step
    assert f"resume: detkit train resume={folder}" in capsys.readouterr().out.replace("\n", " ")
    assert train(toy_parts(tmp_path, resume=str(folder))).folder == folder
    assert_same(state_of(folder)["state_dict"], state_of(whole)["state_dict"])
    assert_same(state_of(folder)["current_model_state"], state_of(whole)["current_model_state"])
    assert rows(folder) == rows(whole)
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_twice_stops_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detkit.training.run.interrupt.SAME_REQUEST_S", 0.0)

    def press_twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    parts = toy_parts(tmp_path)
    parts.trainer.keywords["callbacks"].append(StopAfter(press_twice, 8))
    with pytest.raises(SystemExit):
        train(parts)
    (folder,) = (tmp_path / "toy").iterdir()
    assert [manifest.step for manifest in manifests_in(folder / "checkpoints")] == [6]
    assert "stopped at once" in capsys.readouterr().out


def test_resume_of_an_older_step_leaves_the_branch(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "toy" / whole.name
    shutil.copytree(whole, folder)
    older = folder / "checkpoints" / "step-00000008.ckpt"
    train(toy_parts(tmp_path, resume=str(older), epochs=2))
    assert [manifest.step for manifest in manifests_in(folder / "checkpoints")][-1] == 12
    assert [row["step"] for row in rows(folder)] == ["6", "12"]


def test_damaged_last_checkpoint_gives_way(whole: Path, tmp_path: Path) -> None:
    folder = copy_of_step(whole, tmp_path, 9)
    content = bytearray((folder / "checkpoints" / "step-00000009.ckpt").read_bytes())
    content[500] ^= 4
    (folder / "checkpoints" / "step-00000009.ckpt").write_bytes(content)
    train(toy_parts(tmp_path, resume=True))
    assert_same(state_of(folder)["state_dict"], state_of(whole)["state_dict"])


@pytest.mark.parametrize(
    ("resume", "match"),
    [
        (True, r"resume=true: no run in .*toy has a complete checkpoint"),
        ("absent", r"resume=absent: no complete checkpoint in absent/checkpoints"),
        ("absent/checkpoints/step-00000001.ckpt", r"step-00000001.ckpt: no complete checkpoint: cannot read step-"),
    ],
)
def test_nothing_to_resume(tmp_path: Path, resume: bool | str, match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        train(toy_parts(tmp_path, resume=resume))


def test_unknown_monitor(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"checkpoint.monitor: no number 'val/ap'; there are val/AP, val/AP50"):
        train(toy_parts(tmp_path, checkpoint={"monitor": "val/ap"}))


def test_schedule_needs_an_end(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="trainer: set max_epochs or max_steps"):
        train(toy_parts(tmp_path, epochs=-1))


@pytest.mark.parametrize("wrong", [{"keep": 1}, {"every_n_steps": 0}])
def test_settings_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"at least [12].*got [01]"):
        toy_parts(Path(), checkpoint=wrong)


def test_accumulation_clipping_and_early_stopping(tmp_path: Path) -> None:
    """Lightning's parts; checkpoints and averages count optimizer steps, not batches."""
    early = EarlyStopping("val/AP", mode="max", patience=1)
    parts = toy_parts(
        tmp_path,
        epochs=10,
        data=ToyData(length=28),
        trainer={"accumulate_grad_batches": 3, "callbacks": [early]},
        checkpoint={"every_n_steps": 2},
    )
    trained = train(parts)
    table = rows(trained.folder)
    assert len(table) < 10 and table[0]["step"] == "3"  # 7 batches: 3 + 3 + 1


def test_no_validation_leaves_the_last_weights(tmp_path: Path) -> None:
    trained = train(toy_parts(tmp_path, epochs=1, trainer={"limit_val_batches": 0}))
    weights, metadata = read_detector(trained.folder / "detector.safetensors")
    assert metadata["ap"] is None and trained.numbers == {}
    state = read_checkpoint(trained.folder / "checkpoints" / "step-00000006.ckpt")["state_dict"]
    assert all(torch.equal(tensor, state[f"model.{name}"]) for name, tensor in weights.items())


def test_validation_every_second_epoch(tmp_path: Path) -> None:
    trained = train(toy_parts(tmp_path, epochs=4, trainer={"check_val_every_n_epoch": 2}))
    assert [row["val/AP"] != "" for row in rows(trained.folder)] == [False, True, False, True]


def test_lines_of_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(toy_parts(tmp_path, epochs=2))
    said = capsys.readouterr().out
    assert not any(ord(letter) < 32 and letter != "\n" for letter in said)
    lines = [line.split("  ") for line in said.splitlines() if line.startswith("epoch")]
    assert [line[0] for line in lines] == ["epoch 1/2", "epoch 1/2", "epoch 2/2", "epoch 2/2"]
    assert [word.split()[0] for word in lines[1][1:]] == ["AP", "AP50", "AP75", "S/M/L", "best"]
    assert [word.split()[0] for word in lines[0][1:4]] == ["cls", "box", "loss"] and "images/s" in lines[0][4]
    assert "evaluate: detkit evaluate checkpoint=" in said


def test_exception_in_validation_leaves_the_own_weights(tmp_path: Path) -> None:
    """Validation runs on the average; whatever stops it, the module has its own weights again."""
    parts = toy_parts(tmp_path)
    parts.trainer.keywords["callbacks"].append(StopAfter(interrupt_hard, 12, 1))
    with pytest.raises(SystemExit):
        train(parts)
    reference = toy_parts(tmp_path / "other", trainer={"callbacks": [StopAfter(interrupt_hard, 12, 1)]})
    with pytest.raises(SystemExit):
        train(reference)
    assert_same(dict(parts.model.state_dict()), dict(reference.model.state_dict()))


def interrupt_hard() -> None:
    raise TrainingStopped(at_step_end=False)
