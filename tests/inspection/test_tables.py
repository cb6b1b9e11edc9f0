"""How the tables of a model read."""

import io

import torch
import torchvision
from rich.console import Console, RenderableType
from torch import Tensor, nn

from detkit.inspection.measure import measure_parts
from detkit.inspection.tables import anatomy_table, weights_table
from detkit.inspection.weights import find_weights
from tests.inspection.nets import Net


def shown(table: RenderableType) -> str:
    file = io.StringIO()
    Console(file=file, width=100).print(table)
    return file.getvalue()


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_table_of_parts() -> None:
    model = Net()
    model.backbone.fine.requires_grad_(False)
    text = shown(anatomy_table(measure_parts(model, (16, 24), depth=1), "; 7 classes"))
    head, *lines = rows(text)
    assert " ".join(head) == "Net, one image of 16 x 24 pixels; 7 classes"
    assert "a multiply-add counts as 2" in text
    assert ["fine", "Conv2d", "112", "frozen", "<0.001", "384", "4", "x", "8", "x", "12"] in lines
    assert ["backbone", "Backbone", "264", "152", "<0.001", "576", "2", "levels"] in lines
    assert ["total", "Net", "304", "192", "<0.001", "581", "5"] in lines
    assert ["backbone", "P1", "2", "fine", "4", "x", "8", "x", "12"] in lines
    assert ["neck", "vector", "none", "pooled", "8"] in lines


def test_numbers_in_units() -> None:
    text = shown(anatomy_table(measure_parts(torchvision.models.resnet18(), (224, 224), depth=0)))
    assert text.startswith("ResNet, one image of 224 x 224 pixels\n")
    assert ["total", "ResNet", "11.7", "M", "11.7", "M", "3.628", "2.48", "M", "1000"] in rows(text)
    assert "output of" not in text  # no part gives more than a tensor


def test_outputs_of_a_model_whose_parts_give_tensors() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            x = self.conv(self.conv.weight.new_zeros(1, 3, 2, 2) + images[..., :2, :2])
            return x, torch.zeros(())

    lines = rows(shown(anatomy_table(measure_parts(Two(), (16, 24), depth=1))))
    assert ["model", "2", "x", "2", "x", "2"] in lines and ["model", "scalar"] in lines


def test_weights_as_a_table() -> None:
    lines = rows(shown(weights_table(find_weights(Net(), ["head.*", "backbone.fine.bias"]))))
    assert [line[:2] for line in lines] == [["name", "shape"], ["backbone.fine.bias", "4"], ["head.weight", "5x8"]]
    assert lines[2][2:] == ["0.125", "0.331", "0", "1", "trainable"]  # one 1 among eight: sqrt(7) / 8


def test_long_names_fit_into_100_columns() -> None:
    model = nn.Module()
    model.register_buffer("a" * 90, torch.zeros(0))
    lines = shown(weights_table(find_weights(model, ["*"]))).splitlines()
    assert max(map(len, lines)) <= 100 and sum(line.count("a") for line in lines) >= 90
