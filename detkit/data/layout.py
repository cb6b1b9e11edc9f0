"""Where the images and annotations of a data set lie: the layouts in use, found by their names."""

from pathlib import Path
from typing import NamedTuple

from detkit.errors import DataError

# split: (annotation file, image folder) of COCO 2017, of plain folders, of Roboflow; the first that is there counts
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


class Split(NamedTuple):
    """One part of a data set."""

    annotations: Path
    images: Path


def find_layout(root: str | Path) -> dict[str, Split]:
    """The splits under a folder: those of "train", "val" and "test" that are there.

    Raises:
        DataError: if the folder is missing, or holds no split in a known layout.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: {'not a folder' if folder.exists() else 'there is no such folder'}")
    found: dict[str, Split] = {}
    for name, places in LAYOUTS.items():
        for annotations, images in places:
            if (folder / annotations).is_file() and (folder / images).is_dir():
                found[name] = Split(folder / annotations, folder / images)
                break
    if not found:
        raise DataError(_explain(folder))
    return found


def _explain(folder: Path) -> str:
    wanted = "\n  ".join(f"{annotations} with {images}/" for annotations, images in LAYOUTS["train"])
    there = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    more = f", and {len(there) - 12} more" if len(there) > 12 else ""
    return (
        f"{folder}: no data set in a known layout. For training one of these is looked for:\n  {wanted}\n"
        f"The folder holds: {', '.join(there[:12]) or 'nothing'}{more}"
    )
