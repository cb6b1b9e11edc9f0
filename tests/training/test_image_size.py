"""Images that do not fit the largest stride are refused before the first step."""

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from detkit.errors import RecipeError
from detkit.training.image_size import require_fitting_images


class Strided(nn.Module):
    largest_stride = 64


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"image_hw": (640, 416)}, r"multiples of 64, .* got \[640, 416\], the nearest size is \[640, 384\]"),
        ({"image_hw": (8, 64)}, r"the nearest size is \[64, 64\]"),
        ({"image_hw": (64, 64), "multi_scale": (0.5, 1.5)}, "multi_scale draws multiples of 32 pixels, .* is 64"),
    ],
)
def test_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        require_fitting_images(SimpleNamespace(**data), Strided())


@pytest.mark.parametrize("data", [{}, {"image_hw": (128, 64)}, {"image_hw": (64, 64), "multi_scale": None}])
def test_fits(data: dict[str, Any]) -> None:
    require_fitting_images(SimpleNamespace(**data), Strided())
    require_fitting_images(SimpleNamespace(image_hw=(5, 7)), nn.Identity())
