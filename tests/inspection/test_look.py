"""What is asked for on a command line, and how the answer reads."""

import io
from pathlib import Path

import pytest
import torch
import torchvision
from rich.console import Console
from torch import Tensor, nn

from detkit.errors import RecipeError
from detkit.inspection import Options, look, read_options
from tests.inspection.nets import Net


def shown(model: nn.Module, options: Options, image_hw: tuple[int, int] = (16, 24)) -> str:
    file = io.StringIO()
    Console(file=file, width=100).print(look(model, image_hw, options))
    return file.getvalue()


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_options_and_the_rest() -> None:
    argv = ["recipe=a", "depth=0", "features", "image=b.jpg", "names=*.x=1", "data.image_hw=[2,3]", "out=~/c.png"]
    options, rest = read_options(argv)
    assert rest == ["recipe=a", "data.image_hw=[2,3]"]
    assert options == Options(depth=0, image="b.jpg", names="*.x=1", out=Path("~/c.png").expanduser())


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("depth=-1", "depth: must be a whole number from 0 on; got '-1'"),
        ("classes=0", "classes: must be a whole number from 1 on; got '0'"),
        ("channels=many", "channels: must be a whole number from 1 on; got 'many'"),
        ("features", r"image: is missing; .*features image=photo\.jpg"),
    ],
)
def test_options_that_do_not_fit(argument: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_options([argument])


def test_an_option_without_a_value_is_left_to_the_recipe() -> None:
    assert read_options(["depth"]) == (Options(), ["depth"])


def test_table_of_parts() -> None:
    model = Net()
    model.backbone.fine.requires_grad_(False)
    text = shown(model, Options(classes=7))
    head, *lines = rows(text)
    assert " ".join(head) == "Net, one image of 16 x 24 pixels; 7 classes where the recipe leaves them open (classes=)"
    assert "a multiply-add counts as 2" in text
    assert ["fine", "Conv2d", "112", "frozen", "<0.001", "384", "4", "x", "8", "x", "12"] in lines
    assert ["backbone", "Backbone", "264", "152", "<0.001", "576", "2", "levels"] in lines
    assert ["total", "Net", "304", "192", "<0.001", "581", "5"] in lines
    assert ["backbone", "P1", "2", "fine", "4", "x", "8", "x", "12"] in lines
    assert ["neck", "vector", "none", "pooled", "8"] in lines


def test_numbers_in_units() -> None:
    text = shown(torchvision.models.resnet18(), Options(checkpoint="x", depth=0), (224, 224))
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

    lines = rows(shown(Two(), Options()))
    assert ["model", "2", "x", "2", "x", "2"] in lines and ["model", "scalar"] in lines


def test_weights_as_a_table() -> None:
    lines = rows(shown(Net(), Options(names="head.*,backbone.fine.bias")))
    assert [line[:2] for line in lines] == [["name", "shape"], ["backbone.fine.bias", "4"], ["head.weight", "5x8"]]
    assert lines[2][2:] == ["0.125", "0.331", "0", "1", "trainable"]  # one 1 among eight: sqrt(7) / 8


def test_long_names_fit_into_100_columns() -> None:
    model = nn.Module()
    model.register_buffer("a" * 90, torch.zeros(0))
    lines = shown(model, Options(names="*")).splitlines()
    assert max(map(len, lines)) <= 100 and sum(line.count("a") for line in lines) >= 90
