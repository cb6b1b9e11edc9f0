"""The image files of a split before the first step: are they there, and are they what the annotations say?"""

import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from detkit.data.findings import Findings, Place
from detkit.data.image_header import ImageHeader, read_header
from detkit.errors import DataError

MAX_HEADERS = 20_000  # some seconds; of larger splits a sample is read
_NOTICES = {  # kind: (what, whether it is)
    "image-grayscale": ("grayscale images, read as RGB", lambda header: header.mode in ("L", "LA", "1", "I;16")),
    "image-cmyk": ("CMYK images, converted without a profile", lambda header: header.mode == "CMYK"),
    "image-16-bit": ("16-bit images, scaled to 8 bits", lambda header: header.bits == 16),
    "image-turned": ("images that EXIF turns, read upright", lambda header: header.orientation != 1),
    "image-transparent": ("images with transparency, read over grey", lambda header: header.alpha),
    "image-animated": ("animated images, of which the first picture is read", lambda header: header.animated),
}


def check_image_files(
    folder: Path, names: list[str], image_ids: np.ndarray, sizes_hw: np.ndarray, findings: Findings
) -> str:
    """Note what is wrong or odd with the files.

    Args:
        folder: that the names are relative to.
        names: of the images.
        image_ids: (images,) named in findings.
        sizes_hw: (images, 2) what the annotation file says.
        findings: takes what is wrong, and what is odd.

    Returns:
        How many headers were read, in words.
    """
    unsafe = {row for row, name in enumerate(names) if _leaves(name)}
    findings.error(
        "image-name-unsafe",
        "images whose file_name is not a path inside of the image folder",
        len(unsafe),
        (_place(names[row], image_ids[row], repr(names[row])) for row in sorted(unsafe)),
        "use paths relative to the folder, without '..'",
    )
    absent = _find_absent(folder, {row: name for row, name in enumerate(names) if row not in unsafe})
    findings.error(
        "image-missing",
        f"image files that are not in {folder}",
        len(absent),
        (_place(names[row], image_ids[row], names[row]) for row in sorted(absent)),
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
    odd: dict[str, list[Place]] = {kind: [] for kind in _NOTICES}
    for row, header in headers.items():
        name, image_id = names[row], image_ids[row]
        if isinstance(header, DataError):
            broken.append(_place(name, image_id, str(header)))
            continue
        stated = (int(sizes_hw[row, 0]), int(sizes_hw[row, 1]))
        if stated != (header.height, header.width):
            turned = header.orientation >= 5 and stated == (header.width, header.height)
            sizes = f"{name} is {header.width} x {header.height}, not {stated[1]} x {stated[0]}"
            (unturned if turned else other).append(_place(name, image_id, sizes))
        for kind, (_, is_odd) in _NOTICES.items():
            if is_odd(header):
                odd[kind].append(Place(name, name, int(image_id)))
    for kind, what, places, remedy in (
        ("image-unreadable", "image files that cannot be read", broken, "replace them, or remove their images"),
        (
            "image-size",
            "images of another size than the annotations say",
            other,
            "their boxes would not fit: correct width and height, or the files",
        ),
        (
            "image-exif-ignored",
            "images whose width and height ignore that EXIF turns the picture",
            unturned,
            "their boxes would not fit: annotate the upright picture, or remove the EXIF orientation from the files",
        ),
    ):
        findings.error(kind, what, len(places), places, remedy)
    for kind, (what, _) in _NOTICES.items():
        findings.notice(kind, what, len(odd[kind]), odd[kind])


def _place(name: str, image_id: int, text: str) -> Place:
    return Place(f"image {image_id}: {text}", name, int(image_id))
