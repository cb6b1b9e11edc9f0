"""Every recipe of the checkout: sound, as large as it says, and able to learn from a batch."""

import re
import shlex
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from detkit import recipe
from detkit.api import run_parts
from detkit.commands.evaluate import main as evaluate
from detkit.models import Classifier
from detkit.training import train
from detkit.types import ImageLabels, Targets
from tests.helpers import ROOT
from tests.helpers.targets import packed

RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
OF_FAMILIES = {"yolo_csp_n", "yolo_timm", "yolox_nano", "rtdetr_shufflenet", "rtdetrv2_r18", "classify_csp"}


@cache
def plan_of(name: str) -> recipe.Plan:
    plan = recipe.load([f"recipe={name}"])
    plan.config["model"]["head"]["num_classes"] = 80
    return plan


def test_there_are_recipes() -> None:
    assert {"yolo_csp_n", "yolo_csp", "yolox_x", "rtdetr_r18", "rtdetrv2_r50", "classify_csp"} <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_is_sound(name: str) -> None:
    recipe.check(plan_of(name))
    recipe.check(recipe.load([f"recipe={name}", "data.root=anywhere"]))  # without the demo overlay


@pytest.mark.parametrize("name", RECIPES)
def test_is_as_large_as_its_head_says(name: str) -> None:
    first = (ROOT / "recipes" / f"{name}.yaml").read_text().partition("\n")[0]
    stated = re.search(r"([\d.]+) million parameters", first)
    assert stated
    with torch.device("meta"):
        model = recipe.instantiate(plan_of(name).config["model"])
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert millions == pytest.approx(float(stated[1]), rel=0.03)


def targets_for(model: nn.Module) -> Targets | ImageLabels:
    """Of two images: for a detector the second has no object."""
    if isinstance(model, Classifier):
        return ImageLabels(torch.tensor([7, 0]), np.array([1, 2]))
    return packed([[7], []], [[[8.0, 8.0, 40.0, 50.0]], []])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if name in OF_FAMILIES else pytest.param(name, marks=pytest.mark.long) for name in RECIPES]
)
def test_learns_from_a_batch(name: str) -> None:
    """A finite loss, and a gradient for every parameter that an image with an object can reach."""
    config = plan_of(name).config
    model, loss, decode = (recipe.instantiate(config[part]) for part in ("model", "loss", "decode"))
    targets = targets_for(model)
    predictions = model(torch.rand(2, 3, 64, 64), targets if model.takes_targets else None)
    total = torch.stack(list(loss(predictions, targets).values())).sum()
    total.backward()
    assert total.isfinite()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert len(decode(predictions)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classify_csp", pytest.param("classify_resnet_cifar", marks=pytest.mark.long)])
def test_a_classifier_trains_on_the_demo_set(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two short epochs, then what the run says to type: it prints the numbers of the best epoch again."""
    given = [f"recipe={name}", "wandb=disabled", f"runs_dir={tmp_path}", "data.num_workers=0", "trainer.max_epochs=2"]
    trained = train(run_parts(recipe.load([*given, "trainer.accelerator=cpu", "trainer.limit_train_batches=6"])))
    assert trained.numbers["val/top1"] > 0 and trained.numbers["val/top5"] == 1
    said = capsys.readouterr().out
    (command,) = [line for line in said.splitlines() if line.startswith("evaluate: ")]
    evaluate(shlex.split(command)[3:])
    said = capsys.readouterr().out
    assert f"top1     {trained.numbers['val/top1']:.4f}" in said
    assert all(f"{value:.4f}" in said for value in trained.per_class.values())


def test_the_backbone_of_classify_csp_is_that_of_yolo_csp_n() -> None:
    classifier, detector = (plan_of(name).config["model"] for name in ("classify_csp", "yolo_csp_n"))
    assert classifier["backbone"] == detector["backbone"]
