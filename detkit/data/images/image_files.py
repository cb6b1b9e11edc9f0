"""Checks the image files of a split: that they exist, can be read and agree with the annotations."""

import os
from collections import defaultdict
from pathlib import Path

import numpy as np

from detkit.data.findings import Findings, Place
from detkit.data.images.header import ImageHeader
from detkit.data.images.header_cache import read_headers
from detkit.errors import DataError

MAX_HEADERS = 200_000  # of larger splits an evenly spaced sample is read
_FORMAT_OF = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **{f".{name.lower()}": name for name in ("PNG", "WEBP", "BMP", "GIF")},
}
_NOTICES = {  # kind: (description, condition)
    "image-grayscale": ("grayscale images, read as RGB", lambda header: header.mode in ("L", "LA", "1", "I;16")),
    "image-cmyk": ("CMYK images, converted without a profile", lambda header: header.mode == "CMYK"),
    "image-16-bit": ("16-bit images, scaled to 8 bits", lambda header: header.bits == 16),
    "image-turned": ("images with an EXIF orientation, read upright", lambda header: header.orientation != 1),
    "image-transparent": ("images with transparency, drawn over grey", lambda header: header.alpha),
    "image-animated": ("animated images, of which only the first image is read", lambda header: header.animated),
}


def check_image_files(
    folder: Path,
    names: list[str],
    image_ids: np.ndarray,
    sizes_hw: np.ndarray,
    findings: Findings,
    bounds: Path | None,
) -> str:
    """Add errors and notices about the files to the findings.

    Args:
        folder: of the images.
        names: of the images, relative to the folder.
        image_ids: (images,) shown in findings.
        sizes_hw: (images, 2) by the annotation file.
        findings: to add to.
        bounds: folder that every file must lie in after symbolic links are resolved; None: no such limit.

    Returns:
        Text with the number of headers that were read.
    """
    unsafe = [row for row, name in enumerate(names) if _leaves(name)]
    findings.error(
        "image-name-unsafe",
        "images whose file_name is not a path inside the image folder",
        len(unsafe),
        (_place(names[row], image_ids[row], repr(names[row])) for row in unsafe),
        "use paths relative to the folder, without '..'",
    )
    rows = sorted(set(range(len(names))).difference(unsafe))
    found = _find(folder, {row: names[row] for row in rows}, bounds, findings)
    absent = [row for row in rows if row not in found]
    findings.error(
        "image-missing",
        f"image files that are not in {folder}",
        len(absent),
        (_place(names[row], image_ids[row], names[row]) for row in absent),
        "copy them there, or remove their images from the annotation file",
    )
    outside = [row for row in rows if found.get(row)]
    findings.error(
        "image-leaves-root",
        f"image files that a symbolic link leads to, outside of {bounds}",
        len(outside),
        (_place(names[row], image_ids[row], f"{names[row]} is {found[row]}") for row in outside),
        "copy them there, or set data.follow_links=true if you trust the links",
    )
    present = [row for row in rows if found.get(row) == ""]
    if len(present) > MAX_HEADERS:
        present = [present[place] for place in np.linspace(0, len(present) - 1, MAX_HEADERS).astype(np.int64)]
    headers = dict(zip(present, read_headers(folder, [names[row] for row in present]), strict=True))
    _check_headers(headers, names, image_ids, sizes_hw, findings)
    return f"{len(headers):,} of {len(names):,} image headers read"


def bounds_of(images: Path, root: str | Path | None) -> Path:
    """The folder that all images must lie in: the root if it contains the image folder, else that folder; resolved."""
    folder = Path(os.path.normpath(images))
    base = folder if root is None else Path(os.path.normpath(Path(root).expanduser()))
    return Path(os.path.realpath(base if folder.is_relative_to(base) else folder))


def list_folder(folder: Path) -> set[str]:
    """Names of the entries of a folder; empty if there is no such folder.

    Raises:
        DataError: if it cannot be listed.
    """
    return set(_entries(folder))


def _leaves(name: str) -> bool:
    """Whether a file name points out of the folder that it is relative to."""
    slashed = name.replace("\\", "/")
    return "\0" in name or slashed.startswith("/") or slashed[1:2] == ":" or ".." in slashed.split("/")


def _find(folder: Path, names: dict[int, str], bounds: Path | None, findings: Findings) -> dict[int, str]:
    """For the row of each existing file: its resolved path if that is out of bounds, else "".

    Each folder is listed once, which is faster than a request for each file.
    """
    rows_of: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for row, name in names.items():
        parent, _, base = name.rpartition("/")
        rows_of[parent].append((row, base))
    found = {}
    for parent, rows in rows_of.items():
        try:
            there = _entries(folder / parent)
        except DataError as error:
            findings.error("folder-unreadable", "folders that cannot be listed", 1, (Place(str(error)),), "repair them")
            continue
        real = Path(os.path.realpath(folder / parent))
        inside = _is_inside(real, bounds)
        for row, base in rows:
            if there.get(base):  # a link
                target = Path(os.path.realpath(real / base))
                found[row] = "" if _is_inside(target, bounds) else str(target)
            elif base in there:
                found[row] = "" if inside else str(real / base)
    return found


def _is_inside(path: Path, bounds: Path | None) -> bool:
    return bounds is None or path.is_relative_to(bounds)


def _entries(folder: Path) -> dict[str, bool]:
    """Names in a folder, and whether each is a symbolic link."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_symlink() for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error


def _check_headers(
    headers: dict[int, ImageHeader | DataError],
    names: list[str],
    image_ids: np.ndarray,
    sizes_hw: np.ndarray,
    findings: Findings,
) -> None:
    broken, other, unturned, renamed = [], [], [], []
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
        if _FORMAT_OF.get(Path(name).suffix.lower(), header.format) != header.format:
            renamed.append(Place(f"{name} is {header.format}", name, int(image_id)))
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
    findings.notice("image-suffix", "images of another format than their suffix says", len(renamed), renamed)
    for kind, (what, _) in _NOTICES.items():
        findings.notice(kind, what, len(odd[kind]), odd[kind])


def _place(name: str, image_id: int, text: str) -> Place:
    return Place(f"image {image_id}: {text}", name, int(image_id))
