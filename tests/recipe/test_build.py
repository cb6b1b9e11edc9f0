"""Objects from plans."""

import pickle

import pytest
import torch

from detkit import recipe
from detkit.errors import RecipeError
from detkit.recipe.building import Partial
from tests.recipe import toys
from tests.recipe.conftest import Load

TOYS = ("tests.recipe",)


def test_build(load: Load) -> None:
    plan = load("data.root=/data")
    parts = recipe.build(plan)
    assert parts.data.class_names == ("cat", "dog", "bird") and parts.data.root == "/data"
    assert parts.data.image_hw == (640, 640)  # a tuple, as the constructor says
    assert isinstance(parts.model.backbone, toys.Backbone) and parts.model.backbone.depth == 2
    assert parts.model.head.num_classes == 3 and parts.model.head.in_specs == [1, 2]
    assert parts.loss.weights == {"cls": 0.5, "box": 2}
    assert parts.metrics(ground_truth=[7]) == ([7], "fast")
    assert parts.scheduler("optimizer") == ("optimizer", 3)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = parts.optimizer([weight])
    assert isinstance(optimizer, torch.optim.AdamW) and optimizer.defaults["lr"] == 0.001
    assert [callback.decay for callback in parts.trainer().callbacks] == [0.99]
    assert parts.checkpoint == toys.Settings(keep=2)


def test_the_plan_of_the_parts_rebuilds_the_model_alone(load: Load) -> None:
    plan = load()
    parts = recipe.build(plan)
    assert parts.plan.config["model"]["head"]["num_classes"] == 3
    assert plan.config["model"]["head"]["num_classes"] is None  # the given plan stays as it is
    model = recipe.instantiate(parts.plan.config["model"], trusted=TOYS)
    assert isinstance(model, toys.Detector) and model.head.num_classes == 3


def test_a_part_that_is_ready_is_not_built(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toys.Detector, "__init__", None)
    model = torch.nn.Identity()
    assert recipe.build(load(), model=model).model is model


def test_a_given_number_of_classes_must_be_that_of_the_data(load: Load) -> None:
    assert recipe.build(load("model.head.num_classes=3")).model.head.num_classes == 3
    with pytest.raises(
        RecipeError, match=r"^model\.head\.num_classes: must be 3, .*; got 80 \(command line\); .* null"
    ):
        recipe.build(load("model.head.num_classes=80"))
    stored = load("model.head.num_classes=80")._replace(path=None)
    assert recipe.build(stored).model.head.num_classes == 80  # compared by the names of its classes, elsewhere


def test_the_seed_decides_the_weights(load: Load) -> None:
    linear = ("loss=torch.nn.Linear", "loss.in_features=2", "loss.out_features=2")
    first, second, other = (recipe.build(load(*linear, f"seed={seed}")).loss.weight for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.backbone.depth=0"], "^model.backbone: depth must be positive; got 0$"),
        (["model.head.kind=bins"], "^model.head: bins take at most 2 classes; got 3$"),  # called by Detector, later
    ],
)
def test_a_constructor_refuses_a_value(load: Load, arguments: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        recipe.build(load(*arguments))
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_bug_deeper_down_keeps_its_traceback(load: Load) -> None:
    with pytest.raises(ValueError, match="could not convert"):
        recipe.build(load("decode.threshold=0.25"))


def test_a_refusal_of_a_helper_beside_the_constructor_is_the_users(load: Load) -> None:
    with pytest.raises(RecipeError, match=r"^decode: threshold must be at most 1; got 2$"):
        recipe.build(load("decode.threshold=2"))


def test_a_partial_names_its_place_when_called(load: Load) -> None:
    parts = recipe.build(load("optimizer.lr=-1"))
    with pytest.raises(RecipeError, match=r"^optimizer: Invalid learning rate: -1$"):
        parts.optimizer([torch.nn.Parameter(torch.zeros(1))])
    trainer = recipe.build(load("trainer=lightning.Trainer", "trainer.devices=0", "trainer.accelerator=cpu")).trainer
    with pytest.raises(RecipeError, match=r"(?s)^trainer: .*0"):
        trainer(logger=False)


def test_a_partial_can_be_sent_to_a_worker(load: Load) -> None:
    copy = pickle.loads(pickle.dumps(recipe.build(load()).scheduler))
    assert isinstance(copy, Partial) and copy.place == "scheduler" and copy(1, warmup_epochs=5) == (1, 5)


def test_instantiate() -> None:
    node = {"_target_": "tests.recipe.toys.Head", "num_classes": 2}
    assert recipe.instantiate(node, trusted=TOYS, in_specs=[1], num_classes=5).num_classes == 5
    with pytest.raises(RecipeError, match=r"tests\.recipe\.toys\.Head is in no trusted package"):
        recipe.instantiate(node, in_specs=[1])
    with pytest.raises(RecipeError, match="num_clases: Head has no argument 'num_clases'; did you mean 'num_classes'"):
        recipe.instantiate({"_target_": "tests.recipe.toys.Head", "num_clases": 2}, trusted=TOYS)
    node = {"_target_": "tests.recipe.toys.Trainer", "callbacks": [{"_target_": "tests.recipe.toys.EMA"}]}
    assert isinstance(recipe.instantiate(node, trusted=None).callbacks[0], toys.EMA)
