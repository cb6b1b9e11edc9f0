"""Small images in every format, made here, and the ways of breaking them."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
from PIL import Image

_EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

Mutation = Callable[[np.random.Generator, bytes], bytes]


@cache
def originals() -> dict[str, bytes]:
    """Small images in every format and in the ways of writing that the decoder treats differently."""
    picture = Image.fromarray(_picture(97, 131))
    deep = Image.fromarray(_picture(97, 131)[..., 0].astype(np.uint16) * 257)
    clear = picture.copy()
    clear.putalpha(Image.fromarray(_picture(97, 131)[::-1, :, 1]))
    turned = Image.Exif()
    turned[0x0112] = 6
    made = {
        "JPEG": (picture, {"quality": 85}),
        "JPEG 4:4:4": (picture, {"quality": 92, "subsampling": 0, "exif": turned}),
        "JPEG gray": (picture.convert("L"), {}),
        "JPEG restarts": (picture, {"restart_marker_blocks": 4}),
        "JPEG progressive": (picture, {"progressive": True}),
        "JPEG CMYK": (picture.convert("CMYK"), {}),
        "PNG": (picture, {}),
        "PNG 16": (deep, {}),
        "PNG palette": (picture.convert("P"), {"transparency": 3}),
        "PNG alpha": (clear, {}),
        "PNG animated": (picture, {"save_all": True, "append_images": [picture.rotate(90)]}),
        "WEBP": (picture, {"quality": 80}),
        "WEBP lossless": (clear, {"lossless": True}),
        "WEBP alpha": (clear, {"quality": 70}),
        "WEBP animated": (picture, {"save_all": True, "append_images": [picture.rotate(90)]}),
        "BMP": (picture, {}),
        "BMP palette": (picture.convert("P"), {}),
        "TIFF": (picture, {}),
        "TIFF LZW": (picture, {"compression": "tiff_lzw"}),
        "TIFF deflate": (clear, {"compression": "tiff_adobe_deflate"}),
        "TIFF JPEG": (picture, {"compression": "jpeg"}),
        "TIFF 16": (deep, {}),
        "GIF": (picture.convert("P"), {}),
        "GIF animated": (picture.convert("P"), {"save_all": True, "append_images": [picture.rotate(90).convert("P")]}),
    }
    files = {}
    for name, (image, options) in made.items():
        stream = io.BytesIO()
        image.save(stream, name.partition(" ")[0], **options)
        files[name] = stream.getvalue()
    return files


def _picture(height: int, width: int) -> np.ndarray:
    """Colours with edges and noise, so that every part of a file matters."""
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_AREA)
    return cv2.add(coarse, rng.integers(0, 24, (height, width, 3), dtype=np.uint8))


def _flip_bits(rng: np.random.Generator, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        changed[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return bytes(changed)


def _flip_in_header(rng: np.random.Generator, data: bytes) -> bytes:
    return _flip_bits(rng, data[:64]) + data[64:]


def _cut(rng: np.random.Generator, data: bytes) -> bytes:
    return data[: rng.integers(len(data))]


def _remove(rng: np.random.Generator, data: bytes) -> bytes:
    start = rng.integers(len(data))
    return data[:start] + data[start + rng.integers(1, len(data) // 2) :]


def _insert(rng: np.random.Generator, data: bytes) -> bytes:
    start = rng.integers(len(data))
    return data[:start] + rng.bytes(int(rng.integers(1, 200))) + data[start:]


def _zero(rng: np.random.Generator, data: bytes) -> bytes:
    """As a lost sector of a disk."""
    start, length = rng.integers(len(data)), rng.integers(1, 513)
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def _set_field(rng: np.random.Generator, data: bytes) -> bytes:
    """An extreme number somewhere, where numbers matter the most."""
    end = len(data) if rng.random() < 0.3 else min(len(data), 200)
    at, size = rng.integers(end), int(rng.choice([1, 2, 4]))
    value = int(rng.choice(_EXTREMES)) & (256**size - 1)
    field = value.to_bytes(size, "big" if rng.random() < 0.5 else "little")
    return data[:at] + field + data[at + size :]


def _enlarge(rng: np.random.Generator, data: bytes) -> bytes:
    """A size in the header that is not that of the pixels: near it, at the limit, or far beyond."""
    height, width = (int(rng.choice([1, 98, 132, 1999, 2001, 16383, 30000, 65535])) for _ in range(2))
    if data.startswith(b"\x89PNG"):
        header = data[12:16] + struct.pack(">II", width, height) + data[24:29]
        return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    if data.startswith(b"\xff\xd8"):
        at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5
        return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]
    if data.startswith(b"BM"):
        return data[:18] + struct.pack("<ii", width, -height if rng.random() < 0.3 else height) + data[26:]
    if data.startswith(b"GIF"):
        data = data[:6] + struct.pack("<HH", width, height) + data[10:]
        at = data.index(b",\0\0\0\0") + 5 if rng.random() < 0.7 else 6
        return data[:at] + struct.pack("<HH", width, height) + data[at + 4 :]
    if data.startswith(b"RIFF"):
        at = data.find(b"VP8X") + 12 if b"VP8X" in data else max(data.find(b"\x9d\x01\x2a") + 3, 21)
        return data[:at] + struct.pack("<HH", width & 0x3FFF, height & 0x3FFF) + data[at + 4 :]
    directory = struct.unpack("<I", data[4:8])[0]  # TIFF: width and length are the first two entries
    fields = bytearray(data)
    struct.pack_into("<I", fields, directory + 10, width)
    struct.pack_into("<I", fields, directory + 22, height)
    return bytes(fields)


def _seal(rng: np.random.Generator, data: bytes) -> bytes:
    """Cut, and closed again as the format demands, which satisfies whoever asks for an end only."""
    if data.startswith(b"\x89PNG"):
        start = data.index(b"IDAT") + 4
        pixels = b"IDAT" + data[start : rng.integers(start, len(data) - 16)]
        closed = struct.pack(">I", len(pixels) - 4) + pixels + struct.pack(">I", zlib.crc32(pixels))
        return data[: start - 8] + closed + data[-12:]
    start = max(data.find(mark) for mark in (b"\xff\xda", b"VP8", b",\0\0\0\0")) + 12
    if data.startswith(b"RIFF"):
        cut = data[: rng.integers(start, len(data)) // 2 * 2]
        at = max(cut.find(b"VP8 "), cut.find(b"VP8L")) + 4
        if b"VP8X" in cut or at < 4:
            return _cut(rng, data)
        return (
            cut[:4] + struct.pack("<I", len(cut) - 8) + cut[8:at] + struct.pack("<I", len(cut) - at - 4) + cut[at + 4 :]
        )
    if start > 12 and data.startswith((b"\xff\xd8", b"GIF")):
        end = b"\xff\xd9" if data.startswith(b"\xff\xd8") else b"\0;"
        return data[: rng.integers(start, len(data) - 2)] + end
    return _cut(rng, data)


MUTATIONS: dict[str, Mutation] = {
    "bits": _flip_bits,
    "bits of the header": _flip_in_header,
    "cut": _cut,
    "sealed cut": _seal,
    "part removed": _remove,
    "bytes inserted": _insert,
    "bytes zeroed": _zero,
    "extreme field": _set_field,
    "other size": _enlarge,
    "two at once": lambda rng, data: _flip_bits(rng, _set_field(rng, data)),
    "renamed": lambda _, data: data,
}
