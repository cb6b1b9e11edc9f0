"""Weights by name."""

import math

import pytest
import torch
from torch import nn

from detkit.errors import RecipeError
from detkit.inspection.weights import find_weights
from tests.inspection.nets import Net


def test_numbers_by_hand() -> None:
    linear = nn.Linear(2, 2)
    model = nn.Sequential(linear, nn.BatchNorm1d(3))
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    model[1].requires_grad_(False)
    weight, norm, running, count = find_weights(model, ["0.weight", "1.*mean", "1.weight", "1.num*"])
    assert (weight.name, weight.shape, weight.role) == ("0.weight", (2, 2), "trainable")
    assert (weight.mean, weight.minimum, weight.maximum) == (3, 1, 6)
    assert weight.std == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 4))
    assert (norm.name, norm.role, running.name, running.role) == ("1.weight", "frozen", "1.running_mean", "buffer")
    assert (count.shape, count.mean, count.std) == ((), 0, 0)  # an integer, a single value


def test_patterns_match_across_dots() -> None:
    found = [weight.name for weight in find_weights(Net(), ["*.bias", "head.weigh?"])]
    assert found == ["backbone.fine.bias", "backbone.coarse.bias", "head.weight"]


def test_nothing_in_it_has_no_numbers() -> None:
    model = nn.Module()
    model.register_buffer("empty", torch.zeros(0, 3))
    (weight,) = find_weights(model, ["*"])
    assert weight.shape == (0, 3) and math.isnan(weight.mean) and math.isnan(weight.maximum)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("backbone.fin.bias", r"matches 'backbone\.fin\.bias'; did you mean 'backbone\.fine\.bias', "),
        ("*hed.weight*", r"matches '\*hed\.weight\*'; did you mean 'head\.weight', "),
    ],
)
def test_a_pattern_that_matches_nothing(pattern: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        find_weights(Net(), ["head.*", pattern])


def test_a_model_without_weights() -> None:
    with pytest.raises(RecipeError, match="; there are none"):
        find_weights(nn.ReLU(), ["a"])
