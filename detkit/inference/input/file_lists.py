"""The files that a folder or a pattern stands for."""

import glob
import re
from collections.abc import Collection
from pathlib import Path

from detkit.data.formats.label_files import IMAGE_SUFFIXES, walk_files
from detkit.errors import DataError


def image_files(path: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> list[Path] | None:
    """Files in natural order: 2.jpg before 10.jpg.

    Args:
        path: a folder, whose folders are searched too, those behind links as well; or a pattern with ``*``, ``?`` or
            ``[``, where ``**`` is any number of folders.
        suffixes: of the files of a folder; a pattern says itself which it takes.

    Returns:
        The files. None: the path stands for one file.

    Raises:
        DataError: if there are none, or a folder cannot be listed.
    """
    if path.is_dir():
        found = [path / name for name in walk_files(path, suffixes, follow_links=True)]
        if not found:
            known = ", ".join(sorted(suffixes))
            raise DataError(f"{path}: no file in it, or in a folder inside it, ends with one of {known}")
    elif glob.has_magic(str(path)) and not path.exists():
        found = [file for file in map(Path, glob.glob(str(path), recursive=True)) if file.is_file()]  # noqa: PTH207, absolute ones too
        if not found:
            raise DataError(f"{path}: no file fits this pattern")
    else:
        return None
    return sorted(found, key=_natural)


def _natural(path: Path) -> list[tuple[str, int]]:
    """Sort key in which numbers count as numbers."""
    return [(text, int(number or -1)) for text, number in re.findall(r"(\D*)(\d*)", str(path))]
