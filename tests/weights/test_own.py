"""Starting from a trained detector: what fits is taken, classes go by name, the rest is said."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from typing_extensions import override

from detkit.checkpoint import read_detector, write_detector
from detkit.errors import CheckpointError
from detkit.models import Preprocess
from detkit.training import train
from detkit.training.callbacks.ema import averaged_module
from detkit.weights import load_weights
from tests.helpers.toy import CLASSES, ToyDetector, toy_parts
from tests.training.optim.staged import staged, with_backbone


def detector(classes: int = 3, width: int = 4) -> nn.Module:
    return nn.ModuleDict({"body": nn.Linear(5, width), "class_logits": nn.Linear(4, classes)})


def written(folder: Path, model: nn.Module, class_names: list[str]) -> Path:
    write_detector(folder / "detector.safetensors", model.state_dict(), {"class_names": class_names})
    return folder / "detector.safetensors"


def test_all_of_it(tmp_path: Path) -> None:
    old, new = detector(), detector()
    report = load_weights(written(tmp_path, old, ["a", "b", "c"]), new, ("a", "b", "c"))
    assert str(report) == f"{tmp_path / 'detector.safetensors'}: loaded 4 of 4 tensors"
    torch.testing.assert_close(new.state_dict(), old.state_dict())


@pytest.mark.parametrize("names", [("c", "new", "a"), ("c", "new", "a", "other"), ("c",)], ids=str)
def test_rows_of_classes_go_by_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Also where there are as many classes as before, in another order."""
    old, new = detector(), detector(len(names))
    before = new.get_parameter("class_logits.weight").clone()
    report = load_weights(written(tmp_path, old, ["a", "b", "c"]), new, names)
    known = tuple(row for row, name in enumerate(names) if name in "abc")
    assert report.kept_classes == known
    assert (f"class rows: {len(known)} of {len(names)} from the file" in str(report)) == (len(known) < len(names))
    for row, name in enumerate(names):
        expected = old.get_parameter("class_logits.weight")["abc".index(name)] if name in "abc" else before[row]
        torch.testing.assert_close(new.get_parameter("class_logits.weight")[row], expected)
    torch.testing.assert_close(new.get_parameter("body.weight"), old.get_parameter("body.weight"))


def test_what_does_not_fit_is_listed(tmp_path: Path) -> None:
    new = nn.ModuleDict({"body": nn.Linear(5, 6), "class_logits": nn.Linear(4, 3), "extra": nn.Linear(1, 1)})
    report = load_weights(written(tmp_path, detector(), ["a", "b", "c"]), new, ("a", "b", "c"))
    assert "loaded 2 of 6 tensors (body 0 of 2, class_logits 2 of 2, extra 0 of 2)" in str(report)
    assert report.other_shape[0] == "body.weight (4, 5) in the file, (6, 5) in the model"
    assert report.missing == ("extra.weight", "extra.bias")


def test_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"(?s)another network: no tensor matches.*loaded 0 of 2"):
        load_weights(written(tmp_path, detector(), ["a", "b", "c"]), nn.Linear(2, 2), ("a", "b", "c"))


@pytest.mark.parametrize("place", ["", "detector.safetensors", "checkpoints/step-00000006.ckpt"])
def test_run_folder_detector_and_checkpoint_are_the_same(tmp_path: Path, place: str) -> None:
    trained = train(toy_parts(tmp_path, epochs=1))
    model = ToyDetector()
    assert len(load_weights(trained.folder / place, model, CLASSES).loaded) == 10  # and the counter of its batch norm
    other = ToyDetector()
    load_weights(trained.folder, other, CLASSES)
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_recipe_names_the_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = train(toy_parts(tmp_path, epochs=1))
    train(toy_parts(tmp_path, epochs=1, weights=str(trained.folder), weights_except="body.0.*"), load_weights)
    said = capsys.readouterr().out.replace("\n", " ")
    assert f"weights: {trained.folder}: loaded 8 of 10 tensors" in said
    assert "left out: body.0.weight; body.0.bias" in said


def test_a_program_without_a_loader_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"weights=x.pth: train was called without load_weights"):
        train(toy_parts(tmp_path, epochs=1, weights="x.pth"))
    assert not (tmp_path / "toy").exists()


def test_a_checkpoint_that_lost_its_mark_is_not_taken_for_a_foreign_file(tmp_path: Path) -> None:
    checkpoint = next((train(toy_parts(tmp_path, epochs=1)).folder / "checkpoints").glob("*.ckpt"))
    checkpoint.with_suffix(".json").unlink()
    with pytest.raises(CheckpointError, match="no complete checkpoint: cannot read its manifest"):
        load_weights(checkpoint, ToyDetector(), CLASSES)


class Watch(L.Callback):
    """What the model made of images in each batch, before and after a resume."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen.add(repr(pl_module.model.preprocess))  # type: ignore[union-attr]
        self.seen.add(repr(averaged_module(trainer).model.preprocess))  # type: ignore[union-attr]


def test_pixel_values_of_the_weights_outlast_a_resume(tmp_path: Path) -> None:
    """The recipe says nothing of them, and a resumed run does not read the weights again."""
    given = staged()
    given.preprocess = Preprocess("bgr", 255.0)
    torch.save(given.state_dict(), tmp_path / "given.pth")
    watch = Watch()
    for epochs, resume in ((1, None), (2, True)):
        parts = with_backbone(toy_parts(tmp_path, epochs=epochs, resume=resume, weights=str(tmp_path / "given.pth")))
        parts.trainer.keywords["callbacks"].append(watch)
        folder = train(parts, load_weights).folder
    assert watch.seen == {"Preprocess(BGR, 0..255)"}
    assert read_detector(folder / "detector.safetensors")[0]["preprocess.scale"] == 255
