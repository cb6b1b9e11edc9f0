"""The files of a folder or a pattern."""

import glob
import re
from collections.abc import Collection
from pathlib import Path

from detkit.data.formats.label_files import IMAGE_SUFFIXES, walk_files
from detkit.errors import DataError


def image_files(path: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> list[Path] | None:
    """Files in natural order: 2.jpg before 10.jpg.

    Args:
        path: a folder, which is searched with its subfolders, also through links; or a pattern with ``*``, ``?`` or
            ``[``, where ``**`` is any number of folders.
        suffixes: of the files of a folder; not applied to a pattern.

    Returns:
        The files; None if the path is neither a folder nor a pattern.

    Raises:
        DataError: if there are no files, or a folder cannot be listed.
    """
    if path.is_dir():
        found = [path / name for name in walk_files(path, suffixes, follow_links=True)]
        if not found:
            known = ", ".join(sorted(suffixes))
            raise DataError(f"{path}: no file in it or its subfolders ends with one of {known}")
    elif glob.has_magic(str(path)) and not path.exists():
        found = [file for file in map(Path, glob.glob(str(path), recursive=True)) if file.is_file()]  # noqa: PTH207, absolute ones too
        if not found:
            raise DataError(f"{path}: no file fits this pattern")
    else:
        return None
    return sorted(found, key=_natural)


def _natural(path: Path) -> list[tuple[str, int]]:
    """A sort key that compares numbers by value."""
    return [(text, int(number or -1)) for text, number in re.findall(r"(\D*)(\d*)", str(path))]
