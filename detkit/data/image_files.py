"""The image files of a split before the first step: are they there, and are they what the annotations say?"""

import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from detkit.data.findings import Findings
from detkit.data.image_header import ImageHeader, read_header
from detkit.errors import DataError

MAX_HEADERS = 20_000  # some seconds; of larger splits a sample is read
_ODDITIES = {
    "grayscale images, read as RGB": lambda header: header.mode in ("L", "LA", "1", "I;16"),
    "CMYK images, converted without a profile": lambda header: header.mode == "CMYK",
    "16-bit images, scaled to 8 bits": lambda header: header.bits == 16,
    "images that EXIF turns, read upright": lambda header: header.orientation != 1,
    "images with transparency, read over grey": lambda header: header.alpha,
    "animated images, of which the first picture is read": lambda header: header.animated,
}


def check_image_files(
    folder: Path, names: list[str], image_ids: np.ndarray, sizes_hw: np.ndarray, findings: Findings
) -> str:
    """Note what is wrong or odd with the files.

    Args:
        folder: that the names are relative to.
        names: of the images.
        image_ids: (images,) named in faults.
        sizes_hw: (images, 2) what the annotation file says.
        findings: takes the faults and oddities.

    Returns:
        How many headers were read, in words.
    """
    unsafe = {row for row, name in enumerate(names) if _leaves(name)}
    findings.fault(
        "images whose file_name is not a path inside of the image folder",
        len(unsafe),
        (f"image {image_ids[row]}: {names[row]!r}" for row in sorted(unsafe)),
        "use paths relative to the folder, without '..'",
    )
    absent = _find_absent(folder, {row: name for row, name in enumerate(names) if row not in unsafe})
    findings.fault(
        f"image files that are not in {folder}",
        len(absent),
        (f"image {image_ids[row]}: {names[row]}" for row in sorted(absent)),
        "copy them there, or remove their images from the annotation file",
    )
    present = np.array([row for row in range(len(names)) if row not in absent and row not in unsafe], dtype=np.int64)
    if len(present) > MAX_HEADERS:
        present = present[np.linspace(0, len(present) - 1, MAX_HEADERS).astype(np.int64)]
    headers = _read_headers(folder, names, present.tolist())
    _check_headers(headers, names, image_ids, sizes_hw, findings)
    return f"{len(headers):,} of {len(names):,} image headers read"


def _leaves(name: str) -> bool:
    """Whether a file name points out of the folder that it is relative to; lexically, for links are the user's."""
    slashed = name.replace("\\", "/")
    return "\0" in name or slashed.startswith("/") or slashed[1:2] == ":" or ".." in slashed.split("/")


def _find_absent(folder: Path, names: dict[int, str]) -> set[int]:
    """Rows without a file: each folder is listed once, which is faster than asking for each file."""
    rows_of: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for row, name in names.items():
        parent, _, base = name.rpartition("/")
        rows_of[parent].append((row, base))
    absent = set()
    for parent, rows in rows_of.items():
        there = _list_folder(folder / parent)
        absent |= {row for row, base in rows if base not in there}
    return absent


def _list_folder(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error


def _read_headers(folder: Path, names: list[str], rows: list[int]) -> dict[int, ImageHeader | DataError]:
    """By threads, because on a network disk the waiting is long."""

    def read(batch: list[int]) -> list[ImageHeader | DataError]:
        return [_try_header(folder / names[row]) for row in batch]

    batches = [rows[start : start + 64] for start in range(0, len(rows), 64)]
    with ThreadPoolExecutor(max_workers=8) as threads:
        headers = [header for batch in threads.map(read, batches) for header in batch]
    return dict(zip(rows, headers, strict=True))


def _try_header(path: Path) -> ImageHeader | DataError:
    try:
        return read_header(path)
    except DataError as error:
        return error


def _check_headers(
    headers: dict[int, ImageHeader | DataError],
    names: list[str],
    image_ids: np.ndarray,
    sizes_hw: np.ndarray,
    findings: Findings,
) -> None:
    broken, other, unturned = [], [], []
    odd: dict[str, list[str]] = {what: [] for what in _ODDITIES}
    for row, header in headers.items():
        name = f"image {image_ids[row]}"
        if isinstance(header, DataError):
            broken.append(f"{name}: {header}")
            continue
        stated = (int(sizes_hw[row, 0]), int(sizes_hw[row, 1]))
        if stated != (header.height, header.width):
            turned = header.orientation >= 5 and stated == (header.width, header.height)
            sizes = f"{names[row]} is {header.width} x {header.height}, not {stated[1]} x {stated[0]}"
            (unturned if turned else other).append(f"{name}: {sizes}")
        for what, is_odd in _ODDITIES.items():
            if is_odd(header):
                odd[what].append(names[row])
    findings.fault("image files that cannot be read", len(broken), broken, "replace them, or remove their images")
    findings.fault(
        "images of another size than the annotations say",
        len(other),
        other,
        "their boxes would not fit: correct width and height, or the files",
    )
    findings.fault(
        "images whose width and height ignore that EXIF turns the picture",
        len(unturned),
        unturned,
        "their boxes would not fit: annotate the upright picture, or remove the EXIF orientation from the files",
    )
    for what, odd_names in odd.items():
        findings.oddity(what, len(odd_names), odd_names)
