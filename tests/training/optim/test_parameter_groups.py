"""Which parameters decay, and the learning rate of each."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from detkit.training import Muon
from detkit.training.optim.parameter_groups import parameter_groups, scale_learning_rates
from tests.training.optim.staged import staged


def test_groups() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5), nn.PReLU())
    model[2].bias.requires_grad_(False)
    first, second = parameter_groups(model)
    assert {id(p) for p in first["params"]} == {id(model[0].weight), id(model[2].weight)}
    assert {id(p) for p in second["params"]} == {
        id(p) for p in (model[0].bias, model[1].weight, model[1].bias, model[3].weight)
    }
    optimizer = torch.optim.AdamW([first, second], weight_decay=0.05)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]
    assert len(parameter_groups(nn.Linear(2, 2, bias=False))) == 1


def rate_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW, Muon])
@pytest.mark.parametrize(("backbone_lr_factor", "layer_decay"), [(0.1, 1.0), (1.0, 0.5), (0.1, 0.5), (2.0, 0.7)])
def test_rates_of_the_backbone(
    make: Callable[..., torch.optim.Optimizer], backbone_lr_factor: float, layer_decay: float
) -> None:
    """Each parameter once, at lr * backbone_lr_factor * layer_decay ** (stages from the last)."""
    model = staged()
    optimizer = make(parameter_groups(model, backbone_lr_factor, layer_decay), lr=0.4, weight_decay=0.05)
    rates = rate_of(model, scale_learning_rates(optimizer))
    from_last = {"conv1": 2, "bn1": 2, "layer1": 1, "layer2": 0}
    for name, parameter in model.named_parameters():
        part, child, *_ = name.split(".")
        factor = backbone_lr_factor * layer_decay ** from_last[child] if part == "backbone" else 1
        assert rates[name] == pytest.approx(0.4 * factor)
        [group] = [group for group in optimizer.param_groups if any(p is parameter for p in group["params"])]
        assert group["weight_decay"] == (0.05 if parameter.ndim >= 2 else 0.0)
    names = [group["name"] for group in optimizer.param_groups]
    assert names[:2] == ["others", "others/no_decay"] and len(set(names)) == len(names)
    loss = model(torch.ones(2, 3, 32, 32))[0].sum()
    loss.backward()
    optimizer.step()  # it takes the names


def test_parts_without_names_where_nothing_differs() -> None:
    keys = [set(group) for group in parameter_groups(staged(), 1.0, 1.0)]
    assert keys == [{"params"}, {"params", "weight_decay"}]
