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

from detkit.data.image_header import PILLOW_FAULTS, ImageHeader, jpeg_segments, parse_header
from detkit.errors import DataError

BACKGROUND = 114  # behind transparent pixels: the grey of the letterbox, where there is nothing to find
_REDUCED_FLAGS = {  # RGB order, stored orientation; the names say grayscale, the RGB flag overrules them
    1: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION,
    2: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
_FILLER = bytes(range(1, 255)) * 4  # coded pixels that mean something to any decoder that still waits for some


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
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    header = parse_header(io.BytesIO(data), path)
    if header.format == "JPEG" and header.mode != "CMYK":
        return _turn_upright(_decode_jpeg(data, reduce, path), header.orientation)
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


def _decode_jpeg(data: bytes, reduce: int, path: str | Path) -> np.ndarray:
    image = _decode_cv2(data, _REDUCED_FLAGS[reduce], path)
    corner = max(2, 8 // reduce)  # no larger than the smallest part that can be missing
    if (image[-corner:, -corner:] == 128).all() and _ends_early(data, path):
        raise DataError(f"{path}: the JPEG is damaged: its coded pixels end before the picture does")
    return image


def _ends_early(data: bytes, path: str | Path) -> bool:
    """Whether the coded pixels ran out, though an end marker is there.

    A decoder leaves the rest at exactly 128, which a picture can also be by right. The two differ
    when filler is put before the end marker: only a decoder that waits for more shows it.
    """
    scan = next(offset for marker, offset, _ in jpeg_segments(io.BytesIO(data), path) if marker == 0xDA)
    end = data.index(b"\xff\xd9", scan)
    with _naming_faults("JPEG", path):
        return _thumbnail(data) != _thumbnail(data[:end] + _FILLER + data[end:])


def _thumbnail(jpeg: bytes) -> bytes:
    """Pixels at an eighth of the size, by Pillow, which unlike cv2 does not complain on stderr."""
    with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
        image.draft(None, (1, 1))
        return image.tobytes()


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
    if header.mode in ("I", "F"):
        raise DataError(f"{path}: {header.format} of 32 bits has no fixed white; save it with 8 or 16 bits")
    with _naming_faults(header.format, path), Image.open(io.BytesIO(data), formats=[header.format]) as stored:
        image = ImageOps.exif_transpose(stored)
        if image.mode.startswith("I;16"):
            return _over_background(np.asarray(image).astype(np.uint16))
        if header.alpha:
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
