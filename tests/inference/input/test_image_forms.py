"""An image in memory is what its file would be, and what is no image is named."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detkit.data import decode_image
from detkit.errors import DataError
from detkit.inference.input.image_forms import InputImage, input_images

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def read_all(images: Any) -> list[np.ndarray]:
    given = input_images(images)
    return [image.read() for image in ([given] if isinstance(given, InputImage) else given)]


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def turned() -> dict[str, Any]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"exif": exif}


@pytest.mark.parametrize(
    ("name", "make", "options"),
    [
        ("rgb.png", lambda image: image, dict),
        ("turned.png", lambda image: image, turned),
        ("grey.png", lambda image: image.convert("L"), dict),
        ("two.png", lambda image: image.convert("1"), dict),
        ("palette.png", lambda image: image.quantize(16), dict),
        ("transparent.png", lambda image: image.quantize(16), lambda: {"transparency": 3}),
        ("alpha.tif", lambda image: Image.merge("RGBA", (*image.split(), image.getchannel(0))), dict),
        ("grey_alpha.png", lambda image: image.convert("LA"), dict),
        ("cmyk.tif", lambda image: image.convert("CMYK"), dict),
        ("16_bits.png", lambda image: Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16) * 257), dict),
    ],
)
def test_a_picture_of_pillow_is_read_like_its_file(
    tmp_path: Path, name: str, make: Callable[[Any], Image.Image], options: Callable[[], dict[str, Any]]
) -> None:
    path = saved(tmp_path / name, make(Image.fromarray(RGB)), **options())
    with Image.open(path) as image:
        [read] = read_all(image)
    np.testing.assert_array_equal(read, decode_image(path))
    if name == "turned.png":
        np.testing.assert_array_equal(read, np.rot90(RGB, -1))


@pytest.mark.filterwarnings("ignore:.*EXIF:UserWarning")  # Pillow, of broken ones
def test_odd_pictures_of_pillow(shared_data: Path) -> None:
    """Real files of all modes and orientations: alike but for the two JPEG decoders, of files that both can read."""
    compared = 0
    for path in sorted((shared_data / "odd_images" / "train").iterdir()):
        with Image.open(path) as image:
            [read] = read_all(image)
            if (
                image.mode == "RGB"
                and image.format == "PNG"
                and np.abs(read.astype(int) - decode_image(path)).max() == 1
            ):
                continue  # of 16 bits: Pillow keeps the high byte
        np.testing.assert_allclose(read.astype(int), decode_image(path).astype(int), atol=8)
        compared += 1
    assert compared >= 40


def test_values_in_0_to_1_are_the_nearest_bytes() -> None:
    values = torch.tensor([0.0, 1.0, 0.5, 100.4 / 255, 100.6 / 255, 1e-9])
    [read] = read_all(values.expand(3, 1, 6))
    assert read[0, :, 0].tolist() == [0, 255, 128, 100, 101, 0]
    [read] = read_all(torch.from_numpy(RGB).permute(2, 0, 1).float() / 255)
    np.testing.assert_array_equal(read, RGB)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (RGB.astype(np.float32), r"image: an array must be uint8, 0 to 255; got float32\. Values in \[0, 1\]"),
        (RGB > 9, "must be uint8, 0 to 255; got bool"),
        (RGB.astype(object), "must be uint8, 0 to 255; got object"),
        (RGB.transpose(2, 0, 1), r"an array must be \(H, W, 3\) or \(H, W\); got \(3, 6, 8\)"),
        (RGB[None], r"got \(1, 6, 8, 3\)\. Give several images as a list"),
        (RGB[..., :2], r"got \(6, 8, 2\)"),
        (RGB[0, 0], r"got \(3,\)"),
        (RGB[:0], "image: has no pixels; its size is 8 x 0"),
        (RGB[:, :0, 0], "has no pixels; its size is 0 x 6"),
        (torch.zeros(3, 0, 5), "has no pixels; its size is 5 x 0"),
        (Image.new("RGB", (0, 5)), "has no pixels; its size is 0 x 5"),
        (torch.zeros(6, 8, 3), r"a tensor must be \(3, H, W\); got \(6, 8, 3\)"),
        (torch.zeros(2, 3, 6, 8), r"got \(2, 3, 6, 8\)\. Give several images as a list"),
        (torch.zeros(3, 6, 8).long(), r"must be uint8, or of floats in \[0, 1\]; got torch\.int64"),
        (torch.zeros(3, 6, 8).bool(), r"must be uint8, or of floats in \[0, 1\]; got torch\.bool"),
        (torch.full((3, 6, 8), 37.5), r"must lie in \[0, 1\]; got 37\.5\. Values from 0 to 255 must be uint8"),
        (torch.full((3, 6, 8), -0.25, dtype=torch.float16), r"torch\.float16 must lie in \[0, 1\]; got -0\.25"),
        (torch.full((3, 6, 8), float("nan")), r"must lie in \[0, 1\]; got nan"),
        (torch.full((3, 6, 8), float("inf")), r"must lie in \[0, 1\]; got inf"),
    ],
)
def test_no_image(image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_all(image)
    with pytest.raises(ValueError, match=rf"images\[1\].*{message.removeprefix('image')}"):
        read_all([RGB, image])


def test_files_that_are_no_images(tmp_path: Path) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("a shopping list")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder").mkdir()
    for path, message in (
        (text, "text.jpg: not an image: it begins with b'a shoppi'"),
        (tmp_path / "empty.png", "empty.png: the file is empty"),
        (tmp_path / "absent.jpg", "absent.jpg: cannot be read: No such file or directory"),
        (tmp_path / "folder", "folder: no file in it or its subfolders ends with one of .bmp, .gif"),
        (tmp_path / "*.gif", r"\*.gif: no file fits this pattern"),
        ("", "'' is no path of an image"),
        ("a\0b.jpg", r"'a\\x00b.jpg' is no path of an image"),
    ):
        for images in (path, str(path), [RGB, path]):
            with pytest.raises(DataError, match=message):
                read_all(images if path else "")


def test_a_cut_picture_of_pillow_is_named() -> None:
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)).save(content, "PNG")
    with (
        Image.open(io.BytesIO(content.getvalue()[:900])) as cut,
        pytest.raises(DataError, match=r"images\[0\]: the PNG is"),
    ):
        read_all([cut])
    with pytest.raises(DataError, match="image: picture of 32 bits has no fixed white"):
        read_all(Image.fromarray(np.zeros((2, 2), np.float32)))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (5, "images cannot be int: give the path of a file"),
        (None, "images cannot be NoneType"),
        (b"\xff\xd8", "images cannot be bytes"),
        ([RGB, 5], r"images\[1\] cannot be int"),
        ([[RGB]], r"images\[0\] cannot be list"),
    ],
)
def test_nothing_that_images_come_in(images: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        read_all(images)
