"""Feature maps and their picture."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from detkit.data import Resize, decode_image, to_input
from detkit.errors import DataError, RecipeError
from detkit.inspection.features import FeatureMap, draw_features, feature_maps, strongest_channels, write_features
from detkit.types import FeatureSpec
from tests.inspection.nets import Net


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (20, 30, 3)))
    return path


def test_maps_are_what_the_parts_give() -> None:
    model = Net().train()
    pixels = np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8)
    fine, coarse, pooled = feature_maps(model, pixels)
    expected = model.backbone.fine(torch.from_numpy(pixels / 255).float().permute(2, 0, 1)[None])
    torch.testing.assert_close(fine.values, expected[0].detach())
    assert [(each.part, each.spec.name, tuple(each.values.shape)) for each in (fine, coarse, pooled)] == [
        ("backbone", "fine", (4, 8, 12)),
        ("backbone", "coarse", (8, 4, 6)),
        ("neck", "pooled", (8, 1, 1)),
    ]
    assert model.training and not model.backbone._forward_hooks


def test_strongest_by_mean_absolute_activation() -> None:
    values = torch.tensor([[[1.0, 1.0]], [[-3.0, 3.0]], [[0.0, 5.0]]])
    assert strongest_channels(values, 2) == [(1, 3.0), (2, 2.5)]
    assert [channel for channel, _ in strongest_channels(values, 9)] == [1, 2, 0]


def test_picture_shows_where_a_channel_is_active() -> None:
    """One channel, active in one corner: its tile is bright there and black elsewhere."""
    values = torch.zeros(2, 4, 4)
    values[1, 0, 3] = -2.0
    paper = np.full((64, 64, 3), 255, np.uint8)
    picture = draw_features(paper, [FeatureMap("backbone", FeatureSpec(2, 16, "x"), values)], channels=1)
    tile = np.argwhere(
        (picture == cv2.applyColorMap(np.zeros((1, 1), np.uint8), cv2.COLORMAP_INFERNO)[0, 0, ::-1]).all(-1)
    )
    top, left = tile.min(axis=0)
    bottom, right = tile.max(axis=0) + 1
    assert (bottom - top, right - left) == (132, 132)
    assert picture[top + 5, right - 5].min() > 100  # the brightest colour
    assert (picture[bottom - 5, left + 5] < 10).all() and (picture[bottom - 5, right - 5] < 10).all()


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_dead_and_broken_channels_are_drawn(value: float) -> None:
    values = torch.full((3, 2, 2), value)
    picture = draw_features(np.zeros((8, 8, 3), np.uint8), [FeatureMap("neck", FeatureSpec(3, 4), values)], 16)
    assert picture.dtype == np.uint8


@pytest.mark.parametrize("resize", ["letterbox", "squash"])
@pytest.mark.parametrize("name", ["out.jpg", "out.png"])
def test_file_is_the_picture(image: Path, tmp_path: Path, name: str, resize: Resize) -> None:
    model = Net()
    write_features(model, image, (16, 48), 4, tmp_path / name, resize)
    pixels, _ = to_input(decode_image(image), (16, 48), resize)
    expected = draw_features(pixels, feature_maps(model, pixels), 4)[..., ::-1].astype(int)
    written = cv2.imread(str(tmp_path / name))
    assert written is not None and written.shape == expected.shape
    assert np.abs(written - expected).mean() < 3
    assert (name.endswith("jpg") or (written == expected).all()) and len({*written.reshape(-1, 3).sum(1)}) > 50


@pytest.mark.parametrize(
    ("source", "out", "error", "message"),
    [
        ("image.png", "out.tif", RecipeError, r"must end with \.jpg, \.jpeg, \.png; got '.*out\.tif'"),
        ("image.png", "no/out.png", RecipeError, r"no folder '.*/no'"),
        ("absent.png", "out.png", DataError, r"absent\.png: cannot be read"),
    ],
)
def test_files_that_do_not_fit(
    image: Path, tmp_path: Path, source: str, out: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        write_features(Net(), image.with_name(source), (16, 24), 4, tmp_path / out)


def test_a_size_that_does_not_fit(image: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"multiples of 4, .* got \[16, 18\]"):
        write_features(Net(), image, (16, 18), 4, tmp_path / "out.png")


def test_a_model_without_levels() -> None:
    with pytest.raises(RecipeError, match="Conv2d has no backbone or neck"):
        feature_maps(nn.Conv2d(3, 3, 1), np.zeros((4, 4, 3), np.uint8))
