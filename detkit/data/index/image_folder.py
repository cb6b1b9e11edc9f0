"""Classification sets with one folder of images for each class: train/<class>/ and val/<class>/."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from detkit.data.findings import Findings, Place, Report
from detkit.data.formats.layout import contents_of, require_folder
from detkit.data.images.header_cache import read_headers
from detkit.data.images.image_files import MAX_HEADERS, bounds_of, check_image_files
from detkit.data.index.regions import RegionIndex, describe_counts
from detkit.errors import DataError

_EXPECTED = "train/<class>/*.jpg and val/<class>/*.jpg, one folder for each class"


def find_folders(root: str | Path) -> dict[str, Path]:
    """The folders of the splits "train" and "val"; "val" must exist, "train" need not.

    Raises:
        DataError: if there is no such root, or no val folder in it.
    """
    folder = require_folder(root)
    found = {name: folder / name for name in ("train", "val") if (folder / name).is_dir()}
    if "val" not in found:
        raise DataError(
            f"{folder}: there is no folder val; an image folder holds {_EXPECTED}. "
            f"This one holds: {contents_of(folder)}"
        )
    return found


def check_same_folders(train: RegionIndex, val: RegionIndex) -> None:
    """Require the same class folders: a class index is the position of its name among the sorted folders.

    Raises:
        DataError: if they differ, with the differences.
    """
    alone = [
        f"{name!r} is only in {'train' if name in train.class_names else 'val'}"
        for name in sorted(set(train.class_names) ^ set(val.class_names))
    ]
    if alone:
        more = f"; and {len(alone) - 10} more" if len(alone) > 10 else ""
        raise DataError(
            f"{train.folder} and {val.folder} must have the same class folders: {'; '.join(alone[:10])}{more}; "
            "rename or remove them, or make an empty folder for a class without images"
        )


def read_folder(folder: Path, root: str | Path | None = None, *, follow_links: bool = False) -> RegionIndex:
    """The images of a split, checked, sorted by class and name. Hidden files are skipped.

    Args:
        folder: that holds the class folders.
        root: of the data set; an image outside it is an error. None: the folder.
        follow_links: whether symbolic links may lead out of the root.

    Raises:
        DataError: one for all faults of the folder and its images, named and counted.
    """
    class_names = sorted(name for name, is_folder in _entries(folder) if is_folder)
    if not class_names:
        raise DataError(f"{folder}: there are no class folders in it; an image folder holds {_EXPECTED}")
    findings = Findings(folder)
    beside = sorted(name for name, is_folder in _entries(folder) if not is_folder)
    findings.notice("file-beside-classes", "files beside the class folders, not read", len(beside), map(Place, beside))
    names, labels, deeper = [], [], []
    for label, class_name in enumerate(class_names):
        for name, is_folder in sorted(_entries(folder / class_name)):
            if is_folder:
                deeper.append(f"{class_name}/{name}")
            else:
                names.append(f"{class_name}/{name}")
                labels.append(label)
    remedy = "move their images up, into the folder of the class"
    findings.error("folder-in-class", "folders inside a class folder", len(deeper), map(Place, deeper), remedy)
    counts = np.bincount(np.array(labels, np.int64), minlength=len(class_names))
    empty = [class_names[label] for label in np.flatnonzero(counts == 0)]
    kind, what, places = "class-without-images", "class folders without images", map(Place, empty)
    if names:
        findings.notice(kind, what, len(empty), places)
    else:
        findings.error(kind, f"{what}, and there are no others", len(empty), places, "put images into them")
    bounds = None if follow_links else bounds_of(folder, root)
    sizes_hw, headers_read = _check_files(folder, names, bounds, findings)
    findings.raise_errors()
    encoded = [os.fsencode(name) for name in names]
    described = describe_counts(counts, tuple(class_names))
    return RegionIndex(
        folder=folder,
        name_bytes=b"".join(encoded),
        name_offsets=np.concatenate(([0], np.cumsum([len(name) for name in encoded]))).astype(np.int64),
        image_ids=np.arange(len(names)),
        sizes_hw=sizes_hw,
        image_rows=np.arange(len(names)),
        regions=None,
        labels=np.array(labels, np.int64),
        class_names=tuple(class_names),
        category_ids=np.arange(len(class_names)),
        fingerprint=hashlib.sha256(b"\0".join([*map(os.fsencode, class_names), b"", *encoded])).hexdigest(),
        report=Report(f"{folder}: {len(names):,} images, {described}; {headers_read}", tuple(findings.found)),
    )


def _entries(folder: Path) -> Iterator[tuple[str, bool]]:
    """(name, whether it is a folder) of each entry that is not hidden."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    yield entry.name, entry.is_dir()
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error


def _check_files(folder: Path, names: list[str], bounds: Path | None, findings: Findings) -> tuple[np.ndarray, str]:
    """Sizes (I, 2), 0 where no header was read, and a text that says how many were read.

    No annotation states the sizes, so they are taken from the headers. The check that all data sets share then
    reports the files that cannot be read or are unusual.
    """
    rows = np.arange(len(names))
    if len(rows) > MAX_HEADERS:
        rows = np.linspace(0, len(rows) - 1, MAX_HEADERS).astype(np.int64)
    read = [names[row] for row in rows]
    headers = read_headers(folder, read)
    found = [(0, 0) if isinstance(header, DataError) else (header.height, header.width) for header in headers]
    sizes_hw = np.zeros((len(names), 2), np.int32)
    sizes_hw[rows] = np.array(found, np.int32).reshape(-1, 2)
    check_image_files(folder, read, rows, sizes_hw[rows], findings, bounds)
    return sizes_hw, f"{len(read):,} of {len(names):,} image headers read"
