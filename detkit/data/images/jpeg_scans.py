"""The scans of a JPEG: whether all are in the file, and a test whether a decoder expects more coded pixels.

cv2 5.0 and Pillow 13 need this: they refuse a JPEG without an end marker, but raise no error if the coded pixels end
before the end marker.
"""

import io
from pathlib import Path
from typing import NamedTuple

from detkit.data.images.header import FRAMES, jpeg_segments

_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_FILLER = bytes(range(1, 255)) * 4  # a decoder that expects more coded pixels decodes these


class JpegScans(NamedTuple):
    """The scans of a JPEG; most files have one."""

    number: int
    complete: bool  # whether they contain every bit of every component
    start: int  # offset of the contents of the first scan


def find_scans(data: bytes, path: str | Path) -> JpegScans:
    """The scans of a JPEG that has an end marker, read from their headers.

    Raises:
        DataError: if there is no scan.
    """
    frame, components, start = 0, b"", 0
    for marker, offset, length in jpeg_segments(io.BytesIO(data), path):
        if marker in FRAMES:
            frame, components = marker, data[offset + 6 : offset + length : 3]
        start = offset
    progressive = frame in _PROGRESSIVE
    if not progressive and data[start] == len(components):  # all components are in the first scan
        return JpegScans(1, True, start)
    end = data.index(b"\xff\xd9", start)
    starts = [start]
    while (marker_at := data.find(b"\xff\xda", starts[-1], end)) >= 0:
        starts.append(marker_at + 4)
    missing = {(component, frequency) for component in components for frequency in range(64)}
    for at in starts:
        which, band = data[at + 1 : at + 1 + 2 * data[at] : 2], at + 1 + 2 * data[at]
        first, last, bits = data[band : band + 3] if progressive and band + 3 <= end else (0, 63, int(progressive))
        if bits & 15 == 0:  # this scan has the lowest bit
            missing -= {(component, frequency) for component in which for frequency in range(first, last + 1)}
    return JpegScans(len(starts), not missing, start)


def fill_end(data: bytes, start: int) -> bytes:
    """The file with filler before its end marker, both directly and after a restart marker."""
    end = data.index(b"\xff\xd9", start)
    coded = data[:end].rstrip(b"\xff")  # else the filler would look like a marker
    last = max(range(8), key=lambda number: coded.rfind(bytes((0xFF, 0xD0 + number)), start))
    restarts = coded.rfind(bytes((0xFF, 0xD0 + last)), start) >= 0
    restart = bytes((0xFF, 0xD0 + (last + 1) % 8 if restarts else 0xD0))
    return coded + _FILLER + restart + _FILLER + data[end:]
