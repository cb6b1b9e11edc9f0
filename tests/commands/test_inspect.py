"""scripts/inspect_model.py: recipes and trained detectors, from the command line to what is printed."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from detkit import recipe
from detkit.checkpoint import write_detector
from detkit.commands.inspect import main
from detkit.errors import CheckpointError, DetkitError
from tests.helpers.warm_scripts import Done, run_script

SMALL = ("recipe=yolo_csp_n", "model.backbone.width_multiple=0.125", "data.image_hw=[64,64]")


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    main(list(arguments))
    lines = capsys.readouterr().out.splitlines()
    return [line.split() for line in lines]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder; its detector has two classes, and a bias that no initialisation gives."""
    folder = tmp_path_factory.mktemp("run")
    plan = recipe.load([*SMALL, "data.root=somewhere"])
    config = {
        **plan.config,
        "model": {**plan.config["model"], "head": {**plan.config["model"]["head"], "num_classes": 2}},
    }
    weights = recipe.instantiate(config["model"]).state_dict()
    weights["backbone.stem.conv.norm.bias"] = torch.arange(8.0)
    config |= {"weights": "gone.pth", "weights_except": ["head.*"]}  # what the run itself began with
    write_detector(folder / "detector.safetensors", weights, _metadata(config))
    return folder


def _metadata(config: dict[str, Any]) -> dict[str, Any]:
    return {"recipe": config, "class_names": ["dog", "cat"], "image_hw": [64, 64]}


def test_parts_of_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, *SMALL, "classes=3")
    assert lines[0][:7] == ["Detector,", "one", "image", "of", "64", "x", "64"] and "3 classes" in " ".join(lines[0])
    names = [line[0] for line in lines if len(line) > 1]
    wanted = ["preprocess", "backbone", "stem", "neck", "head", "total"]
    assert [name for name in names if name in wanted][:6] == wanted
    assert ["head", "logits", "84", "x", "3"] in lines  # 8 x 8 + 4 x 4 + 2 x 2 points


def test_the_size_is_the_recipes_and_not_its_demos(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "recipe=yolo_csp_n", "model.backbone.width_multiple=0.125", "depth=0")
    assert "640 x 640 pixels; 80 classes" in " ".join(lines[0])


def test_classifier(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "recipe=classify_csp", "data.image_hw=[64,64]", "depth=0", "classes=3")
    assert lines[0][0] == "Classifier," and lines[0].count("64") == 2
    assert [line[-1] for line in lines if line and line[0] == "head"] == ["3"]
    assert any(line[:3] == ["neck", "vector", "none"] for line in lines)


def test_what_is_frozen(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, *SMALL, "freeze=backbone", "depth=0")
    assert "frozen" in next(line for line in lines if line[:2] == ["backbone", "CSPDarknet"])
    assert "frozen" not in next(line for line in lines if line[:2] == ["head", "YOLOHead"])


def test_weights_of_a_recipe_are_reproducible(capsys: pytest.CaptureFixture[str]) -> None:
    first, second, other = (shown(capsys, *SMALL, "names=*stem*weight", *more) for more in ((), (), ("seed=1",)))
    assert first == second != other


def test_a_trained_detector(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, f"checkpoint={run}", "names=backbone.stem.conv.norm.bias")
    assert ["backbone.stem.conv.norm.bias", "8", "3.5", "2.29", "0", "7", "trainable"] in lines
    lines = shown(capsys, f"checkpoint={run}/detector.safetensors")
    assert ["head", "logits", "84", "x", "2"] in lines and not any("classes" in line for line in lines)


def test_costs_need_no_weights(capsys: pytest.CaptureFixture[str]) -> None:
    """Published weights are not fetched for them."""
    assert any("ResNet" in line for line in shown(capsys, "recipe=yolo_resnet18", "data.image_hw=[64,64]", "depth=0"))


def test_weights_that_a_recipe_starts_from(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, *SMALL, "classes=2", f"weights={run}", "names=backbone.stem.conv.norm.bias")
    assert ["backbone.stem.conv.norm.bias", "8", "3.5", "2.29", "0", "7", "trainable"] in lines


def test_features(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, out = tmp_path / "photo.png", tmp_path / "found.png"
    cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 255, (40, 60, 3)))
    lines = shown(capsys, f"checkpoint={run}", "features", f"image={image}", "channels=2", f"out={out}")
    assert "64 x 64 pixels:" in " ".join(word for line in lines for word in line)
    assert str(out) in "".join(word for line in lines for word in line)
    picture = cv2.imread(str(out))
    assert picture is not None and picture.std() > 20
    shown(capsys, f"checkpoint={run}", "features", f"image={image}", "channels=2", f"out={out}", "data.resize=squash")
    squashed = cv2.imread(str(out))
    grey = [(each == 114).all(axis=2).sum() for each in (picture, squashed)]
    assert grey[0] > 100 * max(1, grey[1])  # the rest of the letterbox


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*SMALL, "names=backbone.stm.*"], "names: no parameter or buffer matches 'backbone.stm.*'; did you mean "),
        ([*SMALL, "data.image_hw=[64,72]"], "data.image_hw: must be multiples of 32"),
        ([*SMALL, "depth=x"], "depth: must be a whole number from 0 on; got 'x'"),
        ([*SMALL, "features"], "image: is missing"),
        ([*SMALL, "features", "image=no.jpg"], "image=no.jpg: there is no such file"),
        ([*SMALL, "dpeth=2"], "dpeth: no key 'dpeth' at the top of a recipe"),
        (["checkpoint=no.safetensors"], "no.safetensors"),
        (["depth=2"], "recipe: is missing"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(DetkitError) as caught:
        main(arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_that_is_not_that_of_the_checkpoint(run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"\d+ weights do not fit the detector of the stored recipe"):
        main([f"checkpoint={run}", "model.backbone.width_multiple=0.25"])


def call(*arguments: str) -> Done:
    return run_script(["scripts/inspect_model.py", *arguments])


def test_no_argument_lists_the_recipes() -> None:
    listed = call()
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "yolo_csp_n" in listed.stdout and "checkpoint=runs/" in listed.stdout
    assert call("--help", "recipe=yolo_csp_n").stdout == listed.stdout


def test_an_error_ends_the_program() -> None:
    answer = call("recipe=yolo_cps")
    assert (answer.returncode, answer.stdout) == (78, "")
    assert answer.stderr.startswith("error: recipe: no recipe 'yolo_cps' in") and answer.stderr.count("\n") == 1
