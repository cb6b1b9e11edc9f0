"""Starting from a trained detector: what fits is taken, classes go by name, the rest is said."""

from pathlib import Path

import pytest
import torch
from torch import nn

from detkit.checkpoint import write_detector
from detkit.errors import CheckpointError
from detkit.training import start_from, train
from tests.training.toy import CLASSES, ToyDetector, toy_parts


def detector(classes: int = 3, width: int = 4) -> nn.Module:
    return nn.ModuleDict({"body": nn.Linear(5, width), "class_logits": nn.Linear(4, classes)})


def written(folder: Path, model: nn.Module, class_names: list[str]) -> Path:
    write_detector(folder / "detector.safetensors", model.state_dict(), {"class_names": class_names})
    return folder / "detector.safetensors"


def test_all_of_it(tmp_path: Path) -> None:
    old, new = detector(), detector()
    said = start_from(written(tmp_path, old, ["a", "b", "c"]), new, ("a", "b", "c"))
    assert said == f"weights: 4 of 4 tensors from {tmp_path / 'detector.safetensors'}"
    torch.testing.assert_close(new.state_dict(), old.state_dict())


@pytest.mark.parametrize("names", [("c", "new", "a"), ("c", "new", "a", "other"), ("c",)], ids=str)
def test_rows_of_classes_go_by_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Also where there are as many classes as before, in another order."""
    old, new = detector(), detector(len(names))
    before = new.get_parameter("class_logits.weight").clone()
    said = start_from(written(tmp_path, old, ["a", "b", "c"]), new, names)
    assert f"classes that it knows: {len({'a', 'c'} & set(names))} of {len(names)}" in said
    for row, name in enumerate(names):
        expected = old.get_parameter("class_logits.weight")["abc".index(name)] if name in "abc" else before[row]
        torch.testing.assert_close(new.get_parameter("class_logits.weight")[row], expected)
    torch.testing.assert_close(new.get_parameter("body.weight"), old.get_parameter("body.weight"))


def test_what_does_not_fit_is_listed(tmp_path: Path) -> None:
    new = nn.ModuleDict({"body": nn.Linear(5, 6), "class_logits": nn.Linear(4, 3), "extra": nn.Linear(1, 1)})
    said = start_from(written(tmp_path, detector(), ["a", "b", "c"]), new, ("a", "b", "c"))
    assert "4 begin untrained:" in said
    assert "  body.weight: (4, 5) in the file, (6, 5) in the model" in said
    assert "  extra.bias: absent in the file, (1,) in the model" in said


def test_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none of its 4 tensors fits the model"):
        start_from(written(tmp_path, detector(), ["a", "b", "c"]), nn.Linear(2, 2), ("a", "b", "c"))


@pytest.mark.parametrize("place", ["", "detector.safetensors", "checkpoints/step-00000006.ckpt"])
def test_run_folder_detector_and_checkpoint_are_the_same(tmp_path: Path, place: str) -> None:
    trained = train(toy_parts(tmp_path, epochs=1))
    model = ToyDetector()
    assert "of 11 tensors" in start_from(trained.folder / place, model, CLASSES)
    other = ToyDetector()
    start_from(trained.folder, other, CLASSES)
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_recipe_names_the_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files of others go to the reader that the script hands in."""
    trained = train(toy_parts(tmp_path, epochs=1))
    train(toy_parts(tmp_path, epochs=1, weights=str(trained.folder)))
    assert "weights: 11 of 11 tensors" in capsys.readouterr().out
    train(toy_parts(tmp_path, epochs=1, weights="x.pth"), foreign_weights=lambda path, *_: f"read by another: {path}")
    assert "read by another: x.pth" in capsys.readouterr().out
