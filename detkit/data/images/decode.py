"""The image decoder for training, validation, prediction and serving: from a file to upright RGB.

cv2 decodes JPEG and PNG, Pillow the other formats. Both need corrections: cv2 returns a half grey image for a cut
JPEG. Pillow clips 16-bit values to white and does not apply the EXIF orientation.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from detkit.data.images.header import MAX_FILE_BYTES, PILLOW_FAULTS, ImageHeader, parse_header, verify_png
from detkit.data.images.jpeg_scans import fill_end, find_scans
from detkit.errors import DataError
from detkit.files import open_regular

BACKGROUND = 114  # behind transparent pixels: the grey of the letterbox
_REDUCED_FLAGS = {  # RGB order, stored orientation; the names say grayscale, but the RGB flag has priority
    1: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION,
    2: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


def decode_image(path: str | Path, reduce: int = 1) -> np.ndarray:
    """The upright image as RGB.

    Grey and palette images become RGB. CMYK is converted without a profile. 16-bit values are divided by 257 (colour
    TIFF: the high byte). Transparent pixels are drawn over ``BACKGROUND``. Of an animation the first image is decoded.

    Args:
        path: JPEG, PNG, WebP, BMP, TIFF or GIF, recognised by its contents, not by its name.
        reduce: 1, 2, 4 or 8: the side of the squares that become one pixel; those at the right and bottom edges may be
            smaller. It saves time only for JPEG.

    Returns:
        (ceil(H / reduce), ceil(W / reduce), 3) uint8.

    Raises:
        DataError: if the file cannot be read, is not an image, is cut or damaged, or has more pixels than the limit.
        ValueError: if ``reduce`` is another number.
    """
    if reduce not in _REDUCED_FLAGS:
        raise ValueError(f"reduce must be 1, 2, 4 or 8; got {reduce}")
    try:
        with open_regular(path, MAX_FILE_BYTES) as file:
            data = file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    header = parse_header(io.BytesIO(data), path)
    if header.format == "JPEG":
        return _turn_upright(_decode_jpeg(data, header, reduce, path), header.orientation)
    if header.format == "PNG" and not header.animated and (header.bits == 16 or not header.alpha):
        # cv2, because Pillow rounds 16 bits down; but cv2 loses some transparency and the first image of animations
        stored = _over_background(_decode_cv2(data, cv2.IMREAD_UNCHANGED, path))
        return _shrink(_turn_upright(stored, header.orientation), reduce)
    return _shrink(_decode_pillow(data, header, path), reduce)


def _decode_cv2(data: bytes, flags: int, path: str | Path) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise DataError(f"{path}: cannot be decoded: {error.err}") from error
    if image is None:
        raise DataError(f"{path}: the image is cut or damaged: it cannot be decoded; copy the file again or remove it")
    return image


def _decode_jpeg(data: bytes, header: ImageHeader, reduce: int, path: str | Path) -> np.ndarray:
    """The pixels in the stored orientation.

    # Note [a JPEG that ends early]
    If the coded pixels end before the end marker, a decoder raises no error: the missing pixels are grey (128), or less
    exact in a JPEG with several scans. But grey can also be correct. So the file is decoded again with filler before
    the end marker: the result changes only if the decoder expected more coded pixels. For a JPEG with one scan this is
    done only if its last 8 x 8 pixels are grey; so a cut within the last block is not detected.
    """
    scans = find_scans(data, path)
    if header.mode == "CMYK":
        image = _jpeg_by_pillow(data, reduce, path)
        may_be_cut = True
    else:
        image = _decode_cv2(data, _REDUCED_FLAGS[reduce], path)
        may_be_cut = scans.number > 1 or _has_grey_end(image, header, reduce)
    if not scans.complete:
        raise DataError(f"{path}: the JPEG is damaged: it ends before its last scans")
    if may_be_cut:
        filled = _jpeg_by_pillow(fill_end(data, scans.start), reduce, path)
        if not np.array_equal(filled, image) and not np.array_equal(filled, _jpeg_by_pillow(data, reduce, path)):
            raise DataError(f"{path}: the JPEG is damaged: its coded pixels end before the picture does")
    return image


def _has_grey_end(image: np.ndarray, header: ImageHeader, reduce: int) -> bool:
    """Whether the visible part of the last block has the lightness of missing pixels."""
    stored_hw = (header.height, header.width) if header.orientation < 5 else (header.width, header.height)
    top, left = ((side - 1) // 8 * 8 // reduce for side in stored_hw)
    lightness = image[top:, left:] @ np.array([0.299, 0.587, 0.114])
    return bool(
        (np.abs(lightness - 128) < 4).all()
    )  # the colour is not compared, because it spreads from the block beside it


def _jpeg_by_pillow(data: bytes, reduce: int, path: str | Path) -> np.ndarray:
    """RGB in the size that cv2 returns, without cv2's messages on stderr."""
    with _naming_faults("JPEG", path), Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        scaled = min(image.size) >= reduce
        if scaled:
            image.draft(None, (image.width // reduce, image.height // reduce))
        pixels = np.array(image.convert("RGB"))
        return pixels if scaled else _shrink(pixels, reduce)


def _over_background(image: np.ndarray) -> np.ndarray:
    """Any array of cv2 (gray, BGR or BGRA; 8 or 16 bits) as 8-bit RGB."""
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=1 / 257)
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    if image.shape[2] == 3:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    alpha = image[..., 3:].astype(np.uint16)
    blend = cv2.cvtColor(image, cv2.COLOR_BGRA2RGB) * alpha + BACKGROUND * (255 - alpha)
    return ((blend + 127) // 255).astype(np.uint8)


def _decode_pillow(data: bytes, header: ImageHeader, path: str | Path) -> np.ndarray:
    if header.format == "PNG":
        verify_png(data, path)
    with _naming_faults(header.format, path), Image.open(io.BytesIO(data), formats=[header.format]) as stored:
        return upright_rgb(stored, path)


def upright_rgb(stored: Image.Image, name: str | Path) -> np.ndarray:
    """A Pillow image as upright RGB, as ``decode_image`` gives it.

    Args:
        stored: image of any mode; its pixels are read here if they are not loaded yet.
        name: of the image, for errors.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: if it is damaged, or has 32 bits per channel.
    """
    kind = stored.format or "picture"
    if stored.mode in ("I", "F"):
        raise DataError(f"{name}: {kind} of 32 bits has no fixed white; save it with 8 or 16 bits")
    with _naming_faults(kind, name):
        image = ImageOps.exif_transpose(stored)
        if image.mode.startswith("I;16"):
            return _over_background(np.asarray(image).astype(np.uint16))
        if stored.has_transparency_data:
            canvas = Image.new("RGBA", image.size, (BACKGROUND, BACKGROUND, BACKGROUND, 255))
            image = Image.alpha_composite(canvas, image.convert("RGBA"))
        return np.array(image.convert("RGB"))


@contextmanager
def _naming_faults(name: str, path: str | Path) -> Iterator[None]:
    """Turn the errors of Pillow into a DataError that names the file."""
    try:
        yield
    except PILLOW_FAULTS as error:
        raise DataError(f"{path}: the {name} is cut or damaged: {error}") from error


def _shrink(image: np.ndarray, reduce: int) -> np.ndarray:
    if reduce == 1:
        return image
    height, width = image.shape[:2]
    whole = cv2.copyMakeBorder(image, 0, -height % reduce, 0, -width % reduce, cv2.BORDER_REPLICATE)
    size_wh = (whole.shape[1] // reduce, whole.shape[0] // reduce)
    return cv2.resize(whole, size_wh, interpolation=cv2.INTER_AREA)


def _turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the transformation that the EXIF orientation describes."""
    if orientation >= 5:
        image = cv2.transpose(image)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
