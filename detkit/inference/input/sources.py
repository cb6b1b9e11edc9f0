"""What ``source=`` names, as frames: pictures, folders, patterns, lists of paths, videos, a camera."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from detkit.data.formats.label_files import IMAGE_SUFFIXES, read_lines
from detkit.data.images.decode import decode_image
from detkit.errors import DataError, nearest_path
from detkit.inference.input.file_lists import image_files
from detkit.inference.input.video import VIDEO_SUFFIXES, Camera, Frame, VideoFile

LIST_BYTES = 2**30  # of a list of paths, at most: some ten million


class ImageFile(NamedTuple):
    """One picture."""

    path: Path
    name: str  # unlike that of any other source; results lie under it

    @property
    def length(self) -> int:
        """Frames."""
        return 1

    def frames(self) -> Iterator[Frame]:
        """The picture.

        Raises:
            DataError: if it cannot be read.
        """
        yield Frame(decode_image(self.path), self.name)


Source = ImageFile | VideoFile | Camera


def find_sources(source: str) -> list[Source]:
    """The pictures and videos that a text names; a file that is named twice is taken once.

    Videos are known by their suffix. Whether a file can be read is found when it is its turn.

    Args:
        source: a picture, a video, a folder (and all folders in it), a pattern such as ``photos/**/*.jpg``, a .txt
            file with a path in every line, relative to that file, or the number of a camera.

    Raises:
        DataError: if there is no such file, or nothing in it.
    """
    path = Path(source).expanduser()
    if path.suffix.lower() == ".txt" and path.is_file():
        return _named(_in_list(path))
    if source.isdecimal() and not path.exists():
        return [Camera(int(source))]
    found = image_files(path, IMAGE_SUFFIXES | VIDEO_SUFFIXES)
    if found is None and not path.exists():
        raise DataError(f"source={source}: there is no such file or folder{nearest_path(path)}")
    return _named(found or [path], path if path.is_dir() else None)


def _named(paths: Iterable[Path], folder: Path | None = None) -> list[Source]:
    """Each file once, its name relative to the folder, else to the folder that all have in common."""
    files = {os.path.abspath(path): path for path in paths}  # noqa: PTH100  (resolve() would follow links)
    base = folder or os.path.commonpath([Path(file).parent for file in files])
    return [_source(path, Path(os.path.relpath(file, base)).as_posix()) for file, path in files.items()]


def _source(path: Path, name: str) -> Source:
    return VideoFile(path, name) if path.suffix.lower() in VIDEO_SUFFIXES else ImageFile(path, name)


def _in_list(file: Path) -> list[Path]:
    """In the order of the lines."""
    lines = read_lines(file, LIST_BYTES)
    if not lines:
        raise DataError(f"{file}: names no file; it needs a path in every line")
    return [file.parent / Path(line).expanduser() for line in lines]
