"""What may be set anew around stored weights, and what may not."""

import pytest
import torch

from detkit import recipe
from detkit.errors import RecipeError
from detkit.inference.stored import StoredDetector


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
