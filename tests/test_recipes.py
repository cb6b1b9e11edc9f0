"""Every recipe of the checkout: sound, as large as it says, and able to learn from a batch."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch

from detkit import recipe
from detkit.types import Target

RECIPES = sorted(path.stem for path in (Path(__file__).parent.parent / "recipes").glob("*.yaml"))


@cache
def plan_of(name: str) -> recipe.Plan:
    plan = recipe.load([f"recipe={name}"])
    plan.config["model"]["head"]["num_classes"] = 80
    return plan


def test_there_are_recipes() -> None:
    assert {"yolo_csp_n", "yolo_csp", "yolox_nano", "yolox_x"} <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_is_sound(name: str) -> None:
    recipe.check(plan_of(name))
    recipe.check(recipe.load([f"recipe={name}", "data.root=anywhere"]))  # without the demo overlay


@pytest.mark.parametrize("name", RECIPES)
def test_is_as_large_as_its_head_says(name: str) -> None:
    first = (Path(__file__).parent.parent / "recipes" / f"{name}.yaml").read_text().partition("\n")[0]
    stated = re.search(r"([\d.]+) million parameters", first)
    assert stated
    with torch.device("meta"):
        model = recipe.instantiate(plan_of(name).config["model"])
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert millions == pytest.approx(float(stated[1]), rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_learns_from_a_batch(name: str) -> None:
    """A finite loss, and a gradient for every parameter that an image with an object can reach."""
    config = plan_of(name).config
    model, loss, decode = (recipe.instantiate(config[part]) for part in ("model", "loss", "decode"))
    none = torch.zeros(0, 4)
    targets = [
        Target(torch.tensor([[8.0, 8.0, 40.0, 50.0]]), torch.tensor([7]), none, 1, (64, 64)),
        Target(none, torch.zeros(0, dtype=torch.int64), none, 2, (64, 64)),
    ]
    predictions = model(torch.rand(2, 3, 64, 64))
    total = torch.stack(list(loss(predictions, targets).values())).sum()
    total.backward()
    assert total.isfinite()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert len(decode(predictions)) == 2
