"""The one image decoder, for training, validation, prediction and serving: a file to upright RGB.

cv2 decodes JPEG and PNG, Pillow what is rare. Neither is left alone: cv2 would return the grey
half of a cut JPEG, and Pillow would clip 16 bits to white and not turn a picture upright.
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

BACKGROUND = 114  # behind transparent pixels: the grey of the letterbox, where there is nothing to find
_REDUCED_FLAGS = {  # RGB order, stored orientation; the names say grayscale, the RGB flag overrules them
    1: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION,
    2: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


def decode_image(path: str | Path, reduce: int = 1) -> np.ndarray:
    """The upright picture as RGB.

    Gray and palette become RGB, CMYK is converted without a profile, 16 bits are divided by 257
    (colour TIFF: the high byte), transparent pixels lie over ``BACKGROUND``, an animation gives
    its first picture.

    Args:
        path: JPEG, PNG, WebP, BMP, TIFF or GIF, known by its contents and not by its name.
        reduce: 1, 2, 4 or 8: a pixel for each square of so many, those at the far edges cut off.
            Only for JPEG it saves time.

    Returns:
        (ceil(H / reduce), ceil(W / reduce), 3) uint8.

    Raises:
        DataError: if the file cannot be read, is no image, is cut or damaged, or holds more
            pixels than the limit.
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
        # Pillow would round 16 bits down; cv2 loses some transparency and the first picture of animations
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
    """As stored, not yet upright.

    # Note [a JPEG that ends early]
    Where coded pixels run out before an end marker, a decoder goes on without a word: what is
    missing is grey (128), or, where the picture comes in several passes, only less exact. Grey can
    be right too. Filler before the end marker tells: only a decoder that waits for more shows it.
    Of a picture in one pass its last 8 x 8 pixels say whether that is worth the time; so a cut in
    the very last block alone is not seen.
    """
    scans = find_scans(data, path)
    if header.mode == "CMYK":
        image = _jpeg_by_pillow(data, reduce, path)
        doubtful = True
    else:
        image = _decode_cv2(data, _REDUCED_FLAGS[reduce], path)
        doubtful = scans.number > 1 or _has_grey_end(image, header, reduce)
    if not scans.complete:
        raise DataError(f"{path}: the JPEG is damaged: it ends before the last passes of its picture")
    if doubtful:
        filled = _jpeg_by_pillow(fill_end(data, scans.start), reduce, path)
        if not np.array_equal(filled, image) and not np.array_equal(filled, _jpeg_by_pillow(data, reduce, path)):
            raise DataError(f"{path}: the JPEG is damaged: its coded pixels end before the picture does")
    return image


def _has_grey_end(image: np.ndarray, header: ImageHeader, reduce: int) -> bool:
    """Whether the last block, as far as it is in the picture, has the lightness of what is missing."""
    stored_hw = (header.height, header.width) if header.orientation < 5 else (header.width, header.height)
    top, left = ((side - 1) // 8 * 8 // reduce for side in stored_hw)
    lightness = image[top:, left:] @ np.array([0.299, 0.587, 0.114])
    return bool((np.abs(lightness - 128) < 4).all())  # not the colour, which spreads from the block beside it


def _jpeg_by_pillow(data: bytes, reduce: int, path: str | Path) -> np.ndarray:
    """RGB of the size that cv2 gives; without cv2's complaints on stderr."""
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
    """A picture of Pillow as ``decode_image`` gives it: upright RGB.

    Args:
        stored: of any mode; one that is not read yet is read here.
        name: of the picture, for errors.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: if it is damaged, or of 32 bits.
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
    """Pillow's many errors as one that names the file."""
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
    """Undo what EXIF says was done: mirrored for even numbers up to 4, transposed from 5 on."""
    if orientation >= 5:
        image = cv2.transpose(image)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
