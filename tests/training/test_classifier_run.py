"""A whole run of a toy classifier: what it leaves and says is that of a detector, with its own numbers."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from detkit.checkpoint import manifests_in, read_checkpoint, read_detector
from detkit.errors import RecipeError
from detkit.ops.drawing import GAP
from detkit.training import TrainingResult, evaluate, train
from detkit.training.callbacks.drawings import CLASS_SIDE_PX, FRAME_PX, RIGHT, WRONG, drawing_of
from detkit.types import ImageLabel, RankedClasses
from tests.helpers.toy import CLASSES, SIZE
from tests.helpers.toy_classes import ToyClasses, toy_class_parts


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """A run long enough to tell red from blue."""
    data = ToyClasses(length=64, batch_size=8)
    return train(toy_class_parts(tmp_path_factory.mktemp("learnt"), epochs=8, data=data))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_learns(learnt: TrainingResult) -> None:
    assert learnt.numbers["val/top1"] > 0.9
    assert learnt.numbers["val/top5"] == 1.0
    assert set(learnt.per_class) == set(CLASSES)
    table = rows(learnt.folder)
    assert float(table[-1]["train/cls"]) < float(table[0]["train/cls"]) / 2
    assert not [name for name in table[0] if "AP" in name]


def test_keeps_the_best_by_its_own_number(learnt: TrainingResult) -> None:
    weights, metadata = read_detector(learnt.folder / "detector.safetensors")
    assert (metadata["monitor"], metadata["score"]) == ("val/top1", learnt.numbers["val/top1"])
    assert metadata["epoch"] == learnt.epoch and "ap" not in metadata
    assert set(weights) == set(toy_class_parts(learnt.folder).model.state_dict())
    scores = [float(row["val/top1"]) for row in rows(learnt.folder)]
    best = max(manifest.score or 0 for manifest in manifests_in(learnt.folder / "checkpoints"))
    assert best == pytest.approx(max(scores))


def test_what_was_saved_evaluates_to_the_numbers_of_the_run(
    learnt: TrainingResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the data has its classes in another order than the model."""
    parts = toy_class_parts(tmp_path)
    parts.model.load_state_dict(read_detector(learnt.folder / "detector.safetensors")[0])
    evaluation = evaluate(parts, CLASSES)
    assert {f"val/{name}": value for name, value in evaluation.numbers.items()} == learnt.numbers
    assert evaluation.per_class == learnt.per_class
    evaluation.show(Console(width=100))
    said = capsys.readouterr().out
    assert "AP" not in said and "COCO" not in said
    headings = [line.split() for line in said.splitlines()]
    assert ["number", "value"] in headings and ["class", "top1"] in headings
    renamed = evaluate(toy_class_parts(tmp_path)._replace(model=parts.model), ("blue", "green", "red"))
    assert renamed.per_class["green"] == learnt.per_class["green"]
    assert renamed.numbers["top1"] < 0.8


def test_has_no_detections_to_write(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"detections=found\.json: a classifier detects no objects"):
        evaluate(toy_class_parts(tmp_path), CLASSES, Path("found.json"))


def test_lines_of_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(toy_class_parts(tmp_path, epochs=2))
    said = capsys.readouterr().out
    lines = [line.split("  ") for line in said.splitlines() if line.startswith("epoch")]
    assert [word.split()[0] for word in lines[1]] == ["epoch", "top1", "top5", "best"]
    assert [word.split()[0] for word in lines[0][1:3]] == ["cls", "loss"]
    assert "AP" not in said
    assert "top1" in next(line for line in said.splitlines() if "class" in line)
    assert "evaluate: detkit evaluate checkpoint=" in said


def test_resumed_equals_whole(tmp_path: Path) -> None:
    whole = train(toy_class_parts(tmp_path, epochs=2))
    (first, last) = manifests_in(whole.folder / "checkpoints")
    expected = read_checkpoint(last.path)["state_dict"]
    last.path.unlink()
    resumed = train(toy_class_parts(tmp_path, epochs=2, resume=True))
    assert (resumed.folder, first.step) == (whole.folder, 6)
    state = read_checkpoint(last.path)["state_dict"]
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert resumed[1:] == whole[1:]


def test_unknown_monitor_names_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no number 'val/AP'; there are val/top1, val/top5"):
        train(toy_class_parts(tmp_path, checkpoint={"monitor": "val/AP"}))


def test_sheets_of_a_run(learnt: TrainingResult) -> None:
    sheets = {path.stem: np.asarray(cv2.imread(str(path))) for path in (learnt.folder / "pictures").iterdir()}
    assert set(sheets) == {"train_batch_0", "train_batch_1", "train_batch_2", "val_best", "val_last"}
    side = -(-CLASS_SIDE_PX // SIZE) * SIZE
    assert sheets["train_batch_0"].shape == (2 * side + GAP, 4 * side + 3 * GAP, 3)
    height, width, _ = sheets["val_last"].shape
    assert width == 4 * (2 * side + GAP + 2 * FRAME_PX) + 3 * GAP  # sixteen images, four in a row
    assert height > 4 * side


@pytest.mark.parametrize(("best", "colour"), [(0, RIGHT), (1, WRONG)])
def test_wrong_ones_are_marked(best: int, colour: tuple[int, int, int]) -> None:
    target = ImageLabel(torch.tensor(0), 7)
    found = RankedClasses(torch.tensor([0.8, 0.2]), torch.tensor([best, 1 - best]))
    image = np.full((64, 96, 3), 128, dtype=np.uint8)
    picture = drawing_of(target).with_result(image, target, found, ("cat", "dog"))
    assert (picture[:FRAME_PX] == colour).all() and (picture[:, -FRAME_PX:] == colour).all()
    assert picture.shape[0] > CLASS_SIDE_PX and (image == 128).all()


def test_an_image_without_a_ranked_class_is_drawn_as_wrong() -> None:
    target = ImageLabel(torch.tensor(0), 7)
    found = RankedClasses(torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    picture = drawing_of(target).with_result(np.zeros((64, 64, 3), dtype=np.uint8), target, found, ("cat",))
    assert (picture[:FRAME_PX] == WRONG).all()
