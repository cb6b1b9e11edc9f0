"""The images of a YOLO split and where their labels lie: by data.yaml, or by two folders that are alike inside."""

from pathlib import Path, PurePosixPath
from typing import NamedTuple

from detkit.data.formats.data_yaml import SPLITS, find_yaml, is_there, read_yaml
from detkit.data.formats.label_files import IMAGE_SUFFIXES, list_files, read_lines
from detkit.data.images.image_files import list_folder
from detkit.errors import DataError

CLASSES_FILE = "classes.txt"


class YoloSet(NamedTuple):
    """The images of a split and their label files."""

    class_names: dict[int, str]
    keypoint_columns: int
    image_names: list[str]  # relative to the image folder
    label_root: Path
    label_names: list[str]  # of each image, relative to the root
    labels: list[Path | None]  # of each image, if it has one
    orphans: list[str]  # label files without an image
    outside: list[str]  # listed images outside the data set


def find_set(annotations: Path, images: Path) -> YoloSet:
    """The images of a split and their labels.

    Args:
        annotations: the folder of label files, or ``data.yaml/train`` for what data.yaml calls train.
        images: the folder that the names of images are relative to.

    Raises:
        DataError: if something that is needed is missing or outside the data set.
    """
    return _from_yaml(annotations, images) if is_yaml_split(annotations) else _from_folders(annotations, images)


def is_yaml_split(annotations: Path) -> bool:
    """Whether a path names a split in a data.yaml: ``data.yaml/train``."""
    return annotations.name in SPLITS and annotations.parent.suffix in (".yaml", ".yml")


def _present(root: Path, names: list[str]) -> list[Path | None]:
    """The label files that exist. Listing their folders is faster than a test of each file."""
    parents = {PurePosixPath(name).parent for name in names}
    there = {(parent / name).as_posix() for parent in parents for name in list_folder(root / parent)}
    return [root / name if name in there else None for name in names]


def _from_folders(annotations: Path, images: Path) -> YoloSet:
    """A folder of labels and one of images with the same names; the class names are there or in a folder above."""
    names, keypoint_columns = _find_classes(annotations)
    image_names = list_files(images, IMAGE_SUFFIXES)
    label_names = [_label_beside(name) for name in image_names]
    orphans = set(list_files(annotations, (".txt",))) - set(label_names)
    labels = _present(annotations, label_names)
    return YoloSet(
        names, keypoint_columns, image_names, annotations, label_names, labels, _without_classes(orphans), []
    )


def _from_yaml(annotations: Path, images: Path) -> YoloSet:
    """The folders and list files that data.yaml names; the last ``images`` of a path becomes ``labels``."""
    content = read_yaml(annotations.parent)
    root = annotations.parent.parent
    if missing := content.missing(annotations.name):
        raise DataError(
            f"{content.file}: {annotations.name}: {', '.join(missing)}: missing, or outside {root}; "
            "correct path and the names, which are relative to it"
        )
    paths: dict[Path, None] = {}  # relative to the root, in order, each once
    orphans: set[str] = set()
    outside: list[str] = []
    for member in content.members(annotations.name):
        here = member.relative_to(root)
        if member.is_dir():
            inside = [here / name for name in list_files(member, IMAGE_SUFFIXES)]
            folder = _label_folder(here)
            wanted = {_label_of(path) for path in inside}
            labels = list_files(root / folder, (".txt",)) if (root / folder).is_dir() else []
            orphans |= {(folder / name).as_posix() for name in labels} - wanted
            paths |= dict.fromkeys(inside)
        else:
            listed = [(line, _listed(line, member, root)) for line in read_lines(member)]
            outside += [f"{member.name}: {line}" for line, path in listed if path is None]
            paths |= dict.fromkeys(path for _, path in listed if path is not None)
    ordered = sorted(paths)
    try:
        image_names = [path.relative_to(images.relative_to(root)).as_posix() for path in ordered]
    except ValueError as error:
        raise DataError(f"{images}: must be the folder that holds all images of {annotations}: {error}") from error
    label_names = [_label_of(path) for path in ordered]
    return YoloSet(
        content.class_names,
        content.keypoint_columns,
        image_names,
        root,
        label_names,
        _present(root, label_names),
        _without_classes(orphans),
        outside,
    )


def _listed(line: str, file: Path, root: Path) -> Path | None:
    """The image that a line of a list names, relative to the root; None if it is outside the root.

    Names are relative to the list's folder (``./images/a.jpg``) or to the root, or absolute.
    """
    parts = PurePosixPath(line.replace("\\", "/"))
    if ".." in parts.parts or "\0" in line:
        return None
    if parts.is_absolute():
        path = Path(parts)
        return path.relative_to(root.absolute()) if path.is_relative_to(root.absolute()) else None
    beside = file.parent / parts
    return (beside if is_there(beside) else root / parts).relative_to(root)


def _label_of(path: Path) -> str:
    """The label file of an image: ``images/train/a.jpg`` to ``labels/train/a.txt``, else the file beside the image."""
    return (_label_folder(path.parent) / _label_beside(path.name)).as_posix()


def _label_folder(folder: Path) -> Path:
    parts = list(folder.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def _label_beside(name: str) -> str:
    return PurePosixPath(name).with_suffix(".txt").as_posix()


def _without_classes(names: set[str]) -> list[str]:
    return sorted(name for name in names if PurePosixPath(name).name != CLASSES_FILE)


def _find_classes(folder: Path) -> tuple[dict[int, str], int]:
    """Class names and keypoint columns of the data.yaml or classes.txt in the folder or the two above it."""
    above = [folder, *folder.absolute().parents[:2]]
    for place in above:
        if (place / CLASSES_FILE).is_file():
            return dict(enumerate(read_lines(place / CLASSES_FILE))), 0
        if file := find_yaml(place):
            content = read_yaml(file)
            return content.class_names, content.keypoint_columns
    raise DataError(
        f"{folder}: the names of the classes are missing; put data.yaml or {CLASSES_FILE} (a name in each line) "
        f"into one of {', '.join(map(str, above))}"
    )
