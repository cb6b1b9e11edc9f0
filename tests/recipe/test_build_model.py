"""The model of a plan alone."""

import pytest
import torch

from detkit import recipe
from detkit.errors import RecipeError
from tests.recipe import toys
from tests.recipe.conftest import Load


def test_no_data_is_touched(load: Load) -> None:
    model = recipe.build_model(load("data.root=/nowhere"), 7)
    assert isinstance(model, toys.Detector) and model.head.num_classes == 7
    assert recipe.build_model(load("model.head.num_classes=5"), 7).head.num_classes == 5


def test_weights_are_those_of_build() -> None:
    plan = recipe.load(["recipe=yolo_csp_n", "model.backbone.width_multiple=0.125"])
    first, second = (recipe.build_model(plan, 2).state_dict() for _ in range(2))
    torch.manual_seed(plan.config["seed"])
    expected = recipe.instantiate({**plan.config["model"], "head": {**plan.config["model"]["head"], "num_classes": 2}})
    for name, tensor in expected.state_dict().items():
        assert torch.equal(first[name], tensor) and torch.equal(second[name], tensor), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.backbone.dept=1"], "model.backbone.dept: Backbone has no argument 'dept'; did you mean 'depth'"),
        (["model.backbone.depth=0"], "^model.backbone: depth must be positive; got 0$"),
    ],
)
def test_a_model_that_does_not_stand(load: Load, arguments: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe.build_model(load(*arguments), 3)


def test_without_demo_is_the_recipe_with_the_overrides(load: Load) -> None:
    plan = load("trainer.devices=3")
    assert plan.demo and plan.config["data"]["image_hw"] == [32, 32]
    bare = recipe.without_demo(plan)
    assert bare.config["data"]["image_hw"] == [640, 640] and bare.config["trainer"]["max_epochs"] == 300
    assert bare.config["trainer"]["devices"] == 3 and bare.source("trainer.devices") == "command line"
    assert bare.demo == {} and recipe.without_demo(bare) is bare


def test_how_images_are_resized(load: Load) -> None:
    assert recipe.resize_of(load()) == "letterbox"  # data that does not speak of it
    assert recipe.resize_of(load("data=detkit.data.CocoDataModule")) == "letterbox"  # its default
    assert recipe.resize_of(recipe.load(["recipe=yolo_csp_n", "data.resize=squash"])) == "squash"


def test_image_size(load: Load) -> None:
    assert recipe.image_hw_of(load("data.image_hw=[64,96]")) == (64, 96)
    assert recipe.image_hw_of(load(replace=("  image_hw: [640, 640]\n", ""))) == (32, 32)  # the demo's
    bare = recipe.without_demo(load(replace=("  image_hw: [640, 640]\n", "")))
    assert recipe.image_hw_of(bare) == (64, 64)  # the default of the class
    with pytest.raises(RecipeError, match=r"data\.image_hw: must be given as \[height, width\]; got None"):
        recipe.image_hw_of(load("data=tests.recipe.toys.EMA"))
