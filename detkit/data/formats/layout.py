"""Where the images and annotations of a data set are: the usual layouts, found by the names of files and folders.

COCO comes first, then YOLO (a data.yaml, or folders of labels beside those of images), then Pascal VOC.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from detkit.data.formats.data_yaml import SPLITS, find_yaml, read_yaml
from detkit.data.formats.yolo_folders import CLASSES_FILE
from detkit.data.images.image_files import list_folder
from detkit.errors import DataError, nearest_path

# split: (annotation file, image folder) of COCO 2017, plain folders and Roboflow; the first that exists is taken
LAYOUTS = {
    "train": (
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_train2017.json", "images/train2017"),
        ("annotations/instances_train.json", "train"),
        ("annotations/instances_train.json", "images/train"),
        ("train/_annotations.coco.json", "train"),
    ),
    "val": (
        ("annotations/instances_val2017.json", "val2017"),
        ("annotations/instances_val2017.json", "images/val2017"),
        ("annotations/instances_val.json", "val"),
        ("annotations/instances_val.json", "images/val"),
        ("valid/_annotations.coco.json", "valid"),
    ),
    "test": (
        ("annotations/instances_test.json", "test"),
        ("annotations/instances_test.json", "images/test"),
        ("test/_annotations.coco.json", "test"),
    ),
}
_FOLDERS = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}  # of YOLO, and of VOC without lists
_LISTS = {"train": ("train", "trainval"), "val": ("val",), "test": ("test",)}  # ImageSets/Main of VOC


class Split(NamedTuple):
    """One part of a data set; ``read_columns`` says what ``annotations`` may be."""

    annotations: Path
    images: Path


def find_layout(root: str | Path) -> dict[str, Split]:
    """The splits under a folder: those of "train", "val" and "test" that exist.

    Raises:
        DataError: if the folder is missing, or holds no split in a known layout.
    """
    folder = require_folder(root)
    finders: tuple[Callable[[Path], dict[str, Split]], ...] = (_coco, _yolo_yaml, _yolo_folders, _voc)
    for find in finders:
        if found := find(folder):
            return {name: found[name] for name in SPLITS if name in found}
    raise DataError(_explain(folder))


def require_folder(root: str | Path) -> Path:
    """The folder of a data set.

    Raises:
        DataError: if it does not exist.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        fault = "not a folder" if folder.exists() else f"there is no such folder{nearest_path(folder)}"
        raise DataError(f"{folder}: {fault}")
    return folder


def contents_of(folder: Path) -> str:
    """The first names in a folder, for a message."""
    names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    more = f", and {len(names) - 12} more" if len(names) > 12 else ""
    return f"{', '.join(names[:12]) or 'nothing'}{more}"


def _coco(folder: Path) -> dict[str, Split]:
    found: dict[str, Split] = {}
    for name, places in LAYOUTS.items():
        for annotations, images in places:
            if (folder / annotations).is_file() and (folder / images).is_dir():
                found[name] = Split(folder / annotations, folder / images)
                break
    return found


def _yolo_yaml(folder: Path) -> dict[str, Split]:
    """What data.yaml names. Image names are relative to the split's folder, or to the root if it has several."""
    file = find_yaml(folder)
    if file is None:
        return {}
    content = read_yaml(file)
    members = {split: content.members(split) for split in content.splits}
    found = {
        split: Split(file / split, here[0] if len(here) == 1 and here[0].is_dir() else folder)
        for split, here in members.items()
        if here
    }
    if not found:
        named = [f"{split}: {', '.join(names)}" for split, names in content.splits.items()]
        raise DataError(
            f"{file}: nothing that it names is in {folder} ({'; '.join(named) or 'neither train: nor val:'}); "
            "correct path: and the names, which are relative to it"
        )
    return found


def _yolo_folders(folder: Path) -> dict[str, Split]:
    """YOLO without a data.yaml: images/train with labels/train, train/images with train/labels, or all in train/."""
    found: dict[str, Split] = {}
    for split, names in _FOLDERS.items():
        for name in names:
            for labels, images in ((f"labels/{name}", f"images/{name}"), (f"{name}/labels", f"{name}/images")):
                if (folder / labels).is_dir() and (folder / images).is_dir():
                    found.setdefault(split, Split(folder / labels, folder / images))
            if (folder / name / CLASSES_FILE).is_file():
                found.setdefault(split, Split(folder / name, folder / name))
    return found


def _voc(folder: Path) -> dict[str, Split]:
    """VOC: Annotations/ and JPEGImages/ with lists in ImageSets/Main/, or train/ with XML files beside the images."""
    annotations, images, lists = folder / "Annotations", folder / "JPEGImages", folder / "ImageSets" / "Main"
    found: dict[str, Split] = {}
    if annotations.is_dir() and images.is_dir():
        for split, names in _LISTS.items():
            here = [lists / f"{name}.txt" for name in names if (lists / f"{name}.txt").is_file()]
            if here:
                found[split] = Split(here[0], images)
        return found or {"train": Split(annotations, images)}
    for split, names in _FOLDERS.items():
        for name in names:
            if any(entry.endswith(".xml") for entry in list_folder(folder / name)):
                found.setdefault(split, Split(folder / name, folder / name))
    return found


def _explain(folder: Path) -> str:
    wanted = "\n  ".join(f"{annotations} with {images}/" for annotations, images in LAYOUTS["train"])
    return (
        f"{folder}: no data set in a known layout. For training one of these is looked for:\n  {wanted}\n"
        "  or of YOLO: data.yaml, or labels/train/ with images/train/, or train/labels/ with train/images/\n"
        "  or of Pascal VOC: Annotations/ with JPEGImages/ and ImageSets/Main/train.txt, or train/*.xml\n"
        f"The folder holds: {contents_of(folder)}"
    )
