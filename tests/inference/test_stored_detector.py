"""What may be set anew around stored weights, and what may not."""

from pathlib import Path
from typing import Any

import pytest
import torch

from detkit import recipe
from detkit.errors import CheckpointError, RecipeError
from detkit.inference.stored_detector import StoredDetector


def stored(name: str) -> StoredDetector:
    config = recipe.load([f"recipe={name}", "model.head.num_classes=2"]).config
    with torch.device("meta"):
        weights = recipe.instantiate(config["model"]).state_dict()
    return StoredDetector(weights, config, ("a", "b"), (64, 64))


def test_less_of_a_decoder_may_run() -> None:
    overrides = [("model.head.inference_layers", 1), ("model.head.inference_queries", 10), ("data.batch_size", 2)]
    config = stored("rtdetr_shufflenet").plan(overrides).config
    assert config["data"]["batch_size"] == 2
    head = recipe.instantiate(config["model"]).head
    assert (head.inference_layers, head.inference_queries) == (1, 10)
    assert len(head.layers) == 3


def test_the_rest_of_the_model_may_not_change() -> None:
    overrides = [("model.head.num_layers", 1), ("model.head.inference_layers", 1), ("model.neck.depth", 1)]
    with pytest.raises(RecipeError, match=r"^model\.head\.num_layers, model\.neck\.depth: the model is that"):
        stored("rtdetr_shufflenet").plan(overrides)


def test_a_head_without_a_decoder_refuses() -> None:
    with pytest.raises(RecipeError, match="YOLOHead has no argument 'inference_layers'"):
        stored("yolo_csp_n").plan([("model.head.inference_layers", 1)])


def test_what_concerns_the_machine_is_left_behind() -> None:
    """A file cannot start a thousand processes here; the command line can."""
    of_file = stored("yolo_csp_n")
    trainer = {**of_file.recipe["trainer"], "strategy": "ddp_spawn", "devices": 1000, "default_root_dir": "/"}
    of_file = of_file._replace(recipe={**of_file.recipe, "trainer": trainer})
    config = of_file.model_plan([("trainer.devices", 2)]).config["trainer"]
    assert config == {"_target_": "lightning.Trainer", "_partial_": True, "precision": "bf16-mixed", "devices": 2}


def test_a_model_larger_than_its_weights_is_not_built() -> None:
    of_file = stored("yolo_csp_n")
    model = {**of_file.recipe["model"], "backbone": {**of_file.recipe["model"]["backbone"], "depth_multiple": 1e9}}
    of_file = of_file._replace(recipe={**of_file.recipe, "model": model}, path=Path("a.ckpt"))
    with pytest.raises(CheckpointError, match=r"a\.ckpt: the recipe makes more than 3760 layers and parameters"):
        of_file.build_model()


class Counted(torch.nn.Module):
    """A layer that counts how often it is built, and may hold a table that no weights are stored of."""

    built = 0

    def __init__(self, table: str = "") -> None:
        super().__init__()
        Counted.built += 1
        self.layer = torch.nn.Linear(2, 2)
        numbers = torch.arange(4)
        if table == "buffer":
            self.register_buffer("numbers", numbers, persistent=False)
        elif table:
            self.numbers = [numbers] if table == "list" else numbers


@pytest.mark.parametrize(("table", "times"), [("", 1), ("buffer", 2), ("attribute", 2), ("list", 2)])
def test_a_model_is_built_once_unless_it_holds_more_than_its_weights(
    monkeypatch: pytest.MonkeyPatch, table: str, times: int
) -> None:
    monkeypatch.setattr("detkit.inference.stored_detector.instantiate", lambda node, **_: Counted(**node))
    weights = {"layer.weight": torch.rand(2, 2).half(), "layer.bias": torch.rand(2)}
    Counted.built = 0
    model = StoredDetector(weights, {"model": {"table": table}}, ("a",), (64, 64)).build_model()
    assert Counted.built == times
    assert isinstance(model, Counted)
    assert {values.dtype for values in model.parameters()} == {torch.float32}  # that of the model, not of the file
    assert torch.equal(model.layer.weight, weights["layer.weight"].float()) and model.layer.bias.requires_grad
    if table:
        numbers: Any = model.numbers[0] if table == "list" else model.numbers
        assert torch.equal(numbers, torch.arange(4))
