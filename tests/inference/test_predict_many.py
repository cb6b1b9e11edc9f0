"""Many images, some of which are none, or gone by the time they are drawn on."""

import io
import logging
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.colour_detector import BLUE, GREEN, RED, picture, predictor, save, tensor


def test_whatever_is_no_image_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And what is there says which it is."""
    save(tmp_path / "1.png", picture(RED))
    (tmp_path / "empty").mkdir()
    cut = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)).save(cut, "PNG")
    with Image.open(io.BytesIO(cut.getvalue()[:900])) as broken:
        images: list[Any] = [
            picture(BLUE),
            "",
            tmp_path / "empty",
            str(tmp_path / "*.gif"),
            tmp_path / "1.png",
            picture()[:0],
            tensor(picture()) / torch.zeros(()),
            picture().astype(float),
            broken,
            Image.fromarray(picture(GREEN)),
        ]
        for kind in (list, iter):
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                found = predictor().predict(kind(images), unreadable="skip", batch_size=2)
            assert [image.names for image in found] == [["blue"], ["red"], ["green"]]
            assert [image.image_name for image in found] == ["images[0]", str(tmp_path / "1.png"), "images[9]"]
            assert [image.image_name for image in found[0:1]] == [found[0][:0].image_name]
            *left_out, count = caplog.messages
            assert count == "7 of 10 images were skipped: they cannot be read"
            said = ["''", "empty", "*.gif", "images[5]: has no", "images[6]:", "images[7]:", "images[8]:"]
            assert all(part in message for part, message in zip(said, left_out, strict=True))
        with pytest.raises(ValueError, match=r"images\[1\]: has no pixels; its size is 200 x 0"):
            predictor().predict([picture(), picture()[:0]])
    assert repr(found[0]) == "<1 detection in images[0] (200 x 120): 1 blue; best 0.90>"
    assert predictor().predict(picture()).image_name == "image"


class Loader:
    """Makes its pictures as they are asked for."""

    def __init__(self) -> None:
        self.made: list[weakref.ref[np.ndarray]] = []

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator[np.ndarray]:
        for _ in range(5):
            image = picture(RED)
            self.made.append(weakref.ref(image))
            yield image


@pytest.mark.parametrize("form", [lambda loader: loader, iter, lambda loader: map(np.asarray, loader)])
def test_pixels_that_pass_by_are_not_kept(form: Callable[[Loader], Any]) -> None:
    loader = Loader()
    found = predictor().predict(form(loader), batch_size=2)
    assert [image.names for image in found] == [["red"]] * 5
    assert [image() for image in loader.made] == [None] * 5
    with pytest.raises(ValueError, match=r"pass it: draw\(image\)"):
        found[0].draw()
    assert found[0]._repr_png_() is None


def test_what_the_caller_holds_and_files_are_drawn_on(tmp_path: Path) -> None:
    path, image = save(tmp_path / "a.png", picture(RED)), picture(RED)
    for images in ([image, path], (image, path), {1: image, 2: path}.values(), {path}, iter([path])):
        for found in predictor().predict(images):
            np.testing.assert_array_equal(found.draw(), found.draw(image))
