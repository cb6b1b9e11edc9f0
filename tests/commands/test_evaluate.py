"""scripts/evaluate.py: its numbers are pycocotools' of the file on disk, whatever the classes are called or ordered."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from detkit import recipe
from detkit.checkpoint import read_detector, write_detector
from detkit.commands.evaluate import main
from detkit.errors import CheckpointError, DataError, RecipeError, StorageError
from detkit.training.module import DetectionModule
from tests.helpers.coco_files import NAMES, pycocotools_says
from tests.helpers.full_images import SIZES_HW, printed, write_split
from tests.helpers.warm_scripts import Done, run_script

ARGUMENTS = ("data.num_workers=0", "data.batch_size=2", "trainer.accelerator=cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with an untrained detector; its boxes are so large that they find objects that fill the image."""
    folder = tmp_path_factory.mktemp("run")
    plan = recipe.load(["recipe=yolo_csp_n", "data.root=somewhere", "data.image_hw=[64,64]", "trainer.precision=32"])
    recipe_of_run = {**plan.config, "name": "toy"}
    recipe_of_run["model"] = {**plan.config["model"], "head": {**plan.config["model"]["head"], "num_classes": 2}}
    torch.manual_seed(0)
    metadata = {"recipe": recipe_of_run, "class_names": ["dog", "cat"], "image_hw": [64, 64]}
    write_detector(folder / "detector.safetensors", recipe.instantiate(recipe_of_run["model"]).state_dict(), metadata)
    return folder


def evaluate(run: Path, root: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, float]:
    main([f"checkpoint={run}", f"data.root={root}", *ARGUMENTS, *arguments])
    return printed(capsys.readouterr().out)


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
def test_numbers_are_those_of_pycocotools(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str, engine: str
) -> None:
    """There is no training split, and none is asked for."""
    for name in ("val", "test"):
        write_split(tmp_path, name)
    found = tmp_path / "a folder" / "found.json"
    shown = evaluate(run, tmp_path, capsys, f"split={split}", f"metrics.engine={engine}", f"detections={found}")
    results = json.loads(found.read_text())
    numbers, per_class = pycocotools_says(tmp_path / "annotations" / f"instances_{split}.json", results)
    expected = {name: value for name, value in (numbers | per_class).items() if value >= 0}
    assert expected["AP"] > 0.001
    assert set(NAMES[:3]) | {"cat", "dog"} <= set(shown) - {str(len(results))}
    assert {name: shown[name] for name in expected} == pytest.approx(expected, abs=5.1e-5)


def test_images_are_resized_as_in_training(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the stored recipe says decides, and boxes come back to images of any aspect ratio."""
    write_split(tmp_path, "val")
    weights, metadata = read_detector(run / "detector.safetensors")
    data = {**metadata["recipe"]["data"], "resize": "squash"}
    squashes = tmp_path / "squashes" / "detector.safetensors"
    write_detector(squashes, weights, {**metadata, "recipe": {**metadata["recipe"], "data": data}})
    found = {}
    for name, detector, override in (
        ("stored", squashes.parent, []),
        ("said", run, ["data.resize=squash"]),
        ("letterbox", run, []),
    ):
        evaluate(detector, tmp_path, capsys, f"detections={tmp_path / name}", *override)
        found[name] = json.loads((tmp_path / name).read_text())
    assert found["stored"] == found["said"] != found["letterbox"]
    reach = {number: np.zeros(2) for number in range(6, 11)}
    for each in found["stored"]:
        x, y, width, height = each["bbox"]
        reach[each["image_id"]] = np.maximum(reach[each["image_id"]], (x + width, y + height))
    for number, (height, width) in enumerate(SIZES_HW):
        np.testing.assert_allclose(reach[10 - number], (width, height), atol=2)


def test_nothing_to_measure_is_no_number(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_split(tmp_path, "val")
    main([f"checkpoint={run}", f"data.root={tmp_path}", *ARGUMENTS])
    assert "AP_large    n/a " in capsys.readouterr().out


def test_splits_that_are_named_by_their_files(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_split(tmp_path, "val")
    usual = evaluate(run, tmp_path, capsys)
    (tmp_path / "annotations").rename(tmp_path / "labels")
    named = ("data.val_annotations=labels/instances_val.json", "data.val_images=val")
    assert evaluate(run, tmp_path, capsys, *named) == usual


def test_classes_go_by_name(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other ids, another order, and a class that the detector knows and the data does not have."""
    write_split(tmp_path / "a", "val")
    write_split(tmp_path / "b", "val", [{"id": 2, "name": "cat"}, {"id": 5, "name": "dog"}])
    first, second = (evaluate(run, tmp_path / name, capsys) for name in ("a", "b"))
    assert first["cat"] != first["dog"]
    assert second == first
    write_split(tmp_path / "c", "val", [{"id": 5, "name": "cat"}])
    cats_only = evaluate(run, tmp_path / "c", capsys)
    assert "dog" not in cats_only
    assert cats_only["AP"] == cats_only["cat"] > 0


def test_classes_that_the_detector_does_not_know(run: Path, tmp_path: Path) -> None:
    write_split(tmp_path, "val", [{"id": 1, "name": "cat"}, {"id": 2, "name": "horse"}, {"id": 3, "name": "cow"}])
    with pytest.raises(DataError, match=r"2 of the 3 classes .* unknown to the model: horse, cow; it has dog, cat"):
        main([f"checkpoint={run}", f"data.root={tmp_path}"])


def test_a_split_that_is_not_there(run: Path, tmp_path: Path) -> None:
    write_split(tmp_path, "val")
    with pytest.raises(DataError, match=r"no test split under .*; there is val"):
        main([f"checkpoint={run}", f"data.root={tmp_path}", "split=test"])
    with pytest.raises(RecipeError, match=r"split=test: tests\.recipe\.toys\.Data has no splits"):
        main([f"checkpoint={run}", "split=test", "data=tests.recipe.toys.Data", "trusted=tests"])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["split=test"], "checkpoint: is missing"),
        (
            ["checkpoint=RUN", "model.backbone.depth_multiple=1", "seed=1"],
            r"model\.backbone\.depth_multiple: the model",
        ),
        (["checkpoint=RUN", "data.rot=/data"], "data.rot: CocoDataModule has no argument 'rot'; did you mean 'root'"),
        (["checkpoint=RUN", "spilt=test"], "spilt: no key 'spilt' at the top"),
        (["checkpoint=RUN", "split=valid"], r"split: must be train, val or test; got 'valid'"),
        (
            ["checkpoint=RUN", "detections=RUN"],
            r"detections=.*: is a folder; give the path of a file in it, e\.g\. .*found\.json$",
        ),
    ],
)
def test_arguments_that_do_not_fit(run: Path, tmp_path: Path, arguments: list[str], match: str) -> None:
    write_split(tmp_path, "val")
    with pytest.raises(RecipeError, match=match):
        main([f"data.root={tmp_path}", *(argument.replace("RUN", str(run)) for argument in arguments)])


def test_detections_that_cannot_be_written(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said before the images are looked at, and a file that is there stays."""
    write_split(tmp_path, "val")
    monkeypatch.setattr(DetectionModule, "__init__", None)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(
        StorageError,
        match=r"file/found\.json: cannot .*; one of the folders in the path is a file$",
    ):
        main([f"checkpoint={run}", f"data.root={tmp_path}", f"detections={tmp_path / 'file' / 'found.json'}"])


def test_values_are_taken_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder may be called like a date, and nothing is no package."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"^checkpoint=2026_01_15: there is no such file"):
        main(["checkpoint=2026_01_15", "trusted="])


def call(*arguments: str) -> Done:
    return run_script(["scripts/evaluate.py", *arguments])


@pytest.mark.slow
def test_faults_are_one_line(tmp_path: Path) -> None:
    answer = call(f"checkpoint={tmp_path}")
    assert (answer.returncode, answer.stdout) == (66, "")
    assert answer.stderr == f"error: {tmp_path}/detector.safetensors: no such file\n"


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Five images on two ranks: one has an image more."""
    write_split(tmp_path, "val")
    alone = evaluate(run, tmp_path, capsys, "data.batch_size=1")
    both = call(f"checkpoint={run}", f"data.root={tmp_path}", *ARGUMENTS, "data.batch_size=1", "trainer.devices=2")
    assert both.returncode == 0, both.stderr
    assert printed(both.stdout) == alone
