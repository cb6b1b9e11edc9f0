"""The scans of a JPEG: whether all of them are in the file, and a way to find out whether a decoder waits for more.

cv2 5.0 and Pillow 13 still need this: they refuse a JPEG without an end marker, but decode one whose pixels end
before its end marker without an error.
"""

import io
from pathlib import Path
from typing import NamedTuple

from detkit.data.images.header import FRAMES, jpeg_segments

_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_FILLER = bytes(range(1, 255)) * 4  # coded pixels that mean something to any decoder that still waits for some


class JpegScans(NamedTuple):
    """The passes in which a JPEG holds its picture: one in most files."""

    number: int
    complete: bool  # whether they give every component to its last bit
    start: int  # offset of the first one's contents


def find_scans(data: bytes, path: str | Path) -> JpegScans:
    """Passes of a JPEG that has an end marker, by their headers alone.

    Raises:
        DataError: if there is none.
    """
    frame, components, start = 0, b"", 0
    for marker, offset, length in jpeg_segments(io.BytesIO(data), path):
        if marker in FRAMES:
            frame, components = marker, data[offset + 6 : offset + length : 3]
        start = offset
    progressive = frame in _PROGRESSIVE
    if not progressive and data[start] == len(components):  # one pass by its nature: not searched for more
        return JpegScans(1, True, start)
    end = data.index(b"\xff\xd9", start)
    starts = [start]
    while (marker_at := data.find(b"\xff\xda", starts[-1], end)) >= 0:
        starts.append(marker_at + 4)
    missing = {(component, frequency) for component in components for frequency in range(64)}
    for at in starts:
        which, band = data[at + 1 : at + 1 + 2 * data[at] : 2], at + 1 + 2 * data[at]
        first, last, bits = data[band : band + 3] if progressive and band + 3 <= end else (0, 63, int(progressive))
        if bits & 15 == 0:  # its lowest bit is in this pass
            missing -= {(component, frequency) for component in which for frequency in range(first, last + 1)}
    return JpegScans(len(starts), not missing, start)


def fill_end(data: bytes, start: int) -> bytes:
    """The file with filler before its end marker, for a decoder in the middle of coded pixels or at a restart."""
    end = data.index(b"\xff\xd9", start)
    coded = data[:end].rstrip(b"\xff")  # else the filler would look like a marker
    last = max(range(8), key=lambda number: coded.rfind(bytes((0xFF, 0xD0 + number)), start))
    restarts = coded.rfind(bytes((0xFF, 0xD0 + last)), start) >= 0
    restart = bytes((0xFF, 0xD0 + (last + 1) % 8 if restarts else 0xD0))
    return coded + _FILLER + restart + _FILLER + data[end:]
