"""The frames of ``source=``: pictures, folders, patterns, lists of paths, videos or a camera."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from detkit.data.formats.label_files import IMAGE_SUFFIXES, read_lines
from detkit.data.images.decode import decode_image
from detkit.errors import DataError, nearest_path
from detkit.inference.input.file_lists import image_files
from detkit.inference.input.video import VIDEO_SUFFIXES, Camera, Frame, VideoFile

LIST_BYTES = 2**30  # largest size of a list of paths, about ten million


class ImageFile(NamedTuple):
    """One picture."""

    path: Path
    name: str  # unique among the sources; the results have this name

    @property
    def length(self) -> int:
        """The number of frames."""
        return 1

    def frames(self) -> Iterator[Frame]:
        """The picture.

        Raises:
            DataError: if it cannot be read.
        """
        yield Frame(decode_image(self.path), self.name)


Source = ImageFile | VideoFile | Camera


def find_sources(source: str) -> list[Source]:
    """The pictures and videos of ``source=``; each file is taken once.

    Videos are recognised by their suffix. Files are opened only when their frames are read.

    Args:
        source: a picture, a video, a folder (and all folders in it), a pattern such as ``photos/**/*.jpg``, a .txt
            file with a path in every line, relative to that file, or the number of a camera.

    Raises:
        DataError: if there is no such file, or a folder or list is empty.
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
    """Each file once, with its name relative to the folder, or to the common parent folder of all files."""
    files = {os.path.abspath(path): path for path in paths}  # noqa: PTH100  (resolve() would follow links)
    base = folder or os.path.commonpath([Path(file).parent for file in files])
    return [_source(path, Path(os.path.relpath(file, base)).as_posix()) for file, path in files.items()]


def _source(path: Path, name: str) -> Source:
    return VideoFile(path, name) if path.suffix.lower() in VIDEO_SUFFIXES else ImageFile(path, name)


def _in_list(file: Path) -> list[Path]:
    """The paths in the order of the lines."""
    lines = read_lines(file, LIST_BYTES)
    if not lines:
        raise DataError(f"{file}: names no file; it needs a path in every line")
    return [file.parent / Path(line).expanduser() for line in lines]
