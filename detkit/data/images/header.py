"""The header of an image file: format, size, mode and orientation, without decoding pixels.

JPEG and PNG headers are parsed here; the other formats are opened by Pillow, which does not decode pixels then. A file
that ends early is detected here if its structure shows it.
"""

import io
import os
import re
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from detkit.errors import DataError
from detkit.files import open_regular

FORMATS = "JPEG, PNG, WebP, BMP, TIFF and GIF"
MAX_PIXELS = 178_956_970  # Pillow's own limit; DETKIT_MAX_PIXELS in the environment replaces it
MAX_FILE_BYTES = 2 << 30
PILLOW_FAULTS = (OSError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, struct.error)

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # C4, C8, CC hold tables
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD8)))
_JPEG_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
_MAX_TEXT = 2**20  # bytes of one unpacked PNG text, as in Pillow
_EXIF_ORIENTATION = 0x0112
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width


class ImageHeader(NamedTuple):
    """Properties of an image; height and width are those of the upright image, after the EXIF orientation."""

    format: str  # JPEG, PNG, WEBP, BMP, TIFF, GIF
    height: int
    width: int
    mode: str  # Pillow's name: L, RGB, P, LA, RGBA, CMYK, I;16 ...
    bits: int  # per channel
    alpha: bool
    orientation: int  # of EXIF, 1 to 8: how the upright image was transformed before it was stored
    animated: bool


def read_header(path: str | Path) -> ImageHeader:
    """Header of an image file; no pixel is decoded.

    Raises:
        DataError: if the file cannot be read, is not an image, is cut, or has too many pixels.
    """
    try:
        with open_regular(path, MAX_FILE_BYTES) as file:
            return parse_header(file, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def parse_header(file: BinaryIO, path: str | Path) -> ImageHeader:
    """Header of an open image file or of its bytes.

    Raises:
        DataError: as ``read_header``; the message names the path.
    """
    magic = file.read(12)
    if magic.startswith(b"\xff\xd8\xff"):
        header = _parse_jpeg(file, path)
    elif magic.startswith(_PNG_SIGNATURE):
        header = _parse_png(file, path)
    else:
        header = _parse_by_pillow(file, _pillow_format(magic, path), path)
    if not header.height or not header.width:
        raise DataError(f"{path}: the image has no pixels: {header.width} x {header.height}")
    max_pixels = _max_pixels()
    if header.height * header.width > max_pixels:
        raise DataError(
            f"{path}: {header.width} x {header.height} pixels are more than {max_pixels:,}, the limit that protects "
            "the memory; if the file is correct, set DETKIT_MAX_PIXELS in the environment to a larger number"
        )
    return header


def jpeg_segments(file: BinaryIO, path: str | Path) -> Iterator[tuple[int, int, int]]:
    """(marker, offset, length) of the contents of each segment of a JPEG, up to the first scan."""
    file.seek(2)
    while True:
        marker = _next_marker(file, path)
        if marker in _WITHOUT_LENGTH:
            continue
        length = int.from_bytes(file.read(2), "big") - 2
        if marker in (_SOI, _EOI) or length < 0:
            raise DataError(f"{path}: the JPEG is cut or damaged: no picture in it")
        offset = file.tell()
        yield marker, offset, length
        if marker == _SOS:
            return
        file.seek(offset + length)


def _next_marker(file: BinaryIO, path: str | Path) -> int:
    two = file.read(2)
    while len(two) == 2:
        if two[0] == 0xFF and two[1] not in (0x00, 0xFF):
            return two[1]
        two = two[1:] + file.read(1)  # fill bytes or other bytes between segments, which decoders skip
    raise DataError(f"{path}: the JPEG is cut: it ends before the picture begins")


def _parse_jpeg(file: BinaryIO, path: str | Path) -> ImageHeader:
    frame, exif, xmp = b"", b"", b""
    for marker, _, length in jpeg_segments(file, path):
        if marker in FRAMES:
            frame = file.read(6)
        elif marker == 0xE1:
            contents = file.read(length)
            if contents.startswith(b"Exif\0\0"):
                exif += contents[6:]  # an EXIF block may be split over segments
            elif contents.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
                xmp = contents
        elif marker == 0xEE and length < 12 and file.read(5) == b"Adobe":
            raise DataError(f"{path}: the JPEG is damaged: its Adobe segment, which defines the colours, is cut")
    if len(frame) < 6 or frame[5] not in _JPEG_MODES:
        raise DataError(f"{path}: the JPEG is damaged: no frame of 1, 3 or 4 channels")
    if not _holds_end(file, file.tell()):
        raise DataError(f"{path}: the JPEG is cut: its end marker is missing; copy the file again or remove it")
    bits, height, width, channels = struct.unpack(">BHHB", frame)
    mode, orientation = _JPEG_MODES[channels], _orientation(exif, xmp)
    return _upright(ImageHeader("JPEG", height, width, mode, bits, False, orientation, animated=False))


def _holds_end(file: BinaryIO, start: int) -> bool:
    """Whether an end marker follows ``start``; coded pixels cannot contain one."""
    size = file.seek(0, os.SEEK_END)
    for position in (max(start, size - 4096), start):  # nearly always in the last two bytes
        file.seek(position)
        if b"\xff\xd9" in file.read():
            return True
    return False


def _parse_png(file: BinaryIO, path: str | Path) -> ImageHeader:
    header, exif, xmp = b"", b"", b""
    transparent = animated = False
    for kind, contents in _png_chunks(file, path):
        if kind == b"IHDR":
            header = contents
        elif kind == b"eXIf":
            exif = contents
        elif kind == b"iTXt" and contents.startswith(b"XML:com.adobe.xmp\0"):
            xmp = contents
        transparent |= kind == b"tRNS"
        animated |= kind == b"acTL"
    if len(header) != 13 or header[9] not in _PNG_MODES:
        raise DataError(f"{path}: the PNG is damaged: no valid IHDR chunk")
    width, height, bits, colours = struct.unpack(">IIBB", header[:10])
    mode, orientation = _PNG_MODES[colours], _orientation(exif, xmp)
    return _upright(ImageHeader("PNG", height, width, mode, bits, transparent or "A" in mode, orientation, animated))


def verify_png(data: bytes, path: str | Path) -> None:
    """Compare all checksums, also those of the pixels, which libpng does and Pillow does not.

    Raises:
        DataError: if a checksum is wrong.
    """
    deque(_png_chunks(io.BytesIO(data), path, skipped=(b"fdAT",)), maxlen=0)  # runs the iterator to its end


def _png_chunks(
    file: BinaryIO, path: str | Path, skipped: tuple[bytes, ...] = (b"IDAT", b"fdAT")
) -> Iterator[tuple[bytes, bytes]]:
    """(type, contents) of every chunk that is not skipped. A decoder compares the checksums of pixels itself."""
    file.seek(len(_PNG_SIGNATURE))
    kind = b""
    while kind != b"IEND":
        start = file.read(8)
        length, kind = int.from_bytes(start[:4], "big"), start[4:]
        if kind in skipped:
            file.seek(length + 4, os.SEEK_CUR)
            continue
        contents, checksum = file.read(length), file.read(4)
        if len(start) < 8 or len(checksum) < 4:
            raise DataError(f"{path}: the PNG is cut: it ends before its IEND chunk; copy the file again or remove it")
        if zlib.crc32(kind + contents) != int.from_bytes(checksum, "big"):
            raise DataError(f"{path}: the PNG is damaged: chunk {kind.decode('latin-1')} fails its checksum")
        if kind == b"zTXt":
            _refuse_bomb(contents, path)
        yield kind, contents


def _refuse_bomb(text_chunk: bytes, path: str | Path) -> None:
    packed = text_chunk.partition(b"\0")[2][1:]
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed, _MAX_TEXT)
    except zlib.error as error:
        raise DataError(f"{path}: the PNG is damaged: {error} in a zTXt chunk") from error
    if unpacker.unconsumed_tail:
        raise DataError(f"{path}: refused: a text in the PNG unpacks to more than {_MAX_TEXT:,} bytes")


def _pillow_format(magic: bytes, path: str | Path) -> str:
    if magic[:4] == b"RIFF" and magic[8:] == b"WEBP":
        return "WEBP"
    if magic[:4] in (b"II*\0", b"MM\0*"):
        return "TIFF"
    if magic[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if magic[:2] == b"BM":
        return "BMP"
    what = "the file is empty" if not magic else f"not an image: it begins with {magic[:8]!r}"
    raise DataError(f"{path}: {what}; detkit reads {FORMATS}")


def _parse_by_pillow(file: BinaryIO, name: str, path: str | Path) -> ImageHeader:
    file.seek(0)
    try:
        with Image.open(file, formats=[name]) as image:
            bits = max(image.tag_v2.get(258, (1,))) if name == "TIFF" else 8  # type: ignore[attr-defined]
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
            height, width = image.height, image.width
            if name == "TIFF" and orientation in _TURNED:
                height, width = width, height  # only for TIFF Pillow gives the upright size
            alpha, animated = image.has_transparency_data, getattr(image, "is_animated", False)
            return _upright(ImageHeader(name, height, width, image.mode, bits, alpha, orientation, animated))
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: {error}; a larger {name} cannot be read, save it as JPEG or PNG") from error
    except PILLOW_FAULTS as error:
        raise DataError(f"{path}: the {name} is cut or damaged: {error}") from error


def _upright(stored: ImageHeader) -> ImageHeader:
    if stored.orientation in _TURNED:
        return stored._replace(height=stored.width, width=stored.height)
    if stored.orientation not in (1, 2, 3, 4):
        return stored._replace(orientation=1)  # an invalid value is ignored
    return stored


def _orientation(exif: bytes, xmp: bytes) -> int:
    """The orientation from EXIF, else from XMP, else 1, as in Pillow."""
    found = _exif_orientation(exif)
    if found is None and (match := _XMP_ORIENTATION.search(xmp)):
        found = int(match[1])
    return 1 if found is None else found


def _exif_orientation(exif: bytes) -> int | None:
    """Orientation in the first directory of a TIFF structure; None if it has none or is damaged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return None
    (start,) = struct.unpack_from(order + "I", exif, 4)
    if start + 2 > len(exif):
        return None
    (count,) = struct.unpack_from(order + "H", exif, start)
    for offset in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, _ = struct.unpack_from(order + "HHI", exif, offset)
        if tag == _EXIF_ORIENTATION:
            return struct.unpack_from(order + ("I" if kind == 4 else "H"), exif, offset + 8)[0]
    return None


def _max_pixels() -> int:
    text = os.environ.get("DETKIT_MAX_PIXELS")
    if text is None:
        return MAX_PIXELS
    if not text.isdecimal():
        raise DataError(f"DETKIT_MAX_PIXELS must be a whole number of pixels; got {text!r}")
    return int(text)
