"""The train and validation split of a run: where they lie, and that they fit each other."""

from pathlib import Path

from detkit.data.coco import CocoIndex
from detkit.data.layout import Split, find_layout
from detkit.errors import DataError

Explicit = dict[
    str, tuple[str | None, str | None]
]  # split: annotation file and image folder, where the user names them


def find_splits(root: str | None, explicit: Explicit) -> dict[str, Split]:
    """The splits that the user names, relative to ``root``, and those of the others that ``root`` holds.

    Raises:
        DataError: if there is no validation split, or ``root`` holds nothing.
    """
    named = {
        name: _split(root, annotations, images)
        for name, (annotations, images) in explicit.items()
        if annotations and images
    }
    found = find_layout(root) if root is not None and len(named) < len(explicit) else {}
    splits = {name: (found | named)[name] for name in explicit if name in found | named}
    if "val" not in splits:
        raise no_split("val", root, found.get("train"))
    return splits


def no_split(name: str, root: str | None, other: Split | None = None) -> DataError:
    """What to say when a split is missing, and which other one might stand in for it."""
    where = "" if root is None else f" under {root}"
    remedy = f"name it by data.{name}_annotations and data.{name}_images"
    if other is not None and root is not None:
        annotations, images = (path.relative_to(Path(root).expanduser()) for path in other)
        remedy += (
            f"; data.{name}_annotations={annotations} data.{name}_images={images} evaluates on the training images, "
            "which tells nothing about new ones"
        )
    return DataError(f"there is no {name} split{where}; {remedy}")


def check_same_classes(train: CocoIndex, val: CocoIndex) -> None:
    """Class indices come from the category ids of each file, so ids and names must agree.

    Raises:
        DataError: if they do not, with the differences.
    """
    train_classes, val_classes = (
        dict(zip(index.category_ids.tolist(), index.class_names, strict=True)) for index in (train, val)
    )
    if train_classes == val_classes:
        return
    differences = [
        f"category {number} is {train_classes.get(number, 'missing')!r} in train, "
        f"{val_classes.get(number, 'missing')!r} in val"
        for number in sorted(train_classes.keys() | val_classes.keys())
        if train_classes.get(number) != val_classes.get(number)
    ]
    more = f"; and {len(differences) - 10} more" if len(differences) > 10 else ""
    raise DataError(
        f"train and val must list the same categories; {'; '.join(differences[:10])}{more}: "
        "copy the categories of one annotation file into the other"
    )


def _split(root: str | None, annotations: str, images: str) -> Split:
    base = Path(root or "").expanduser()
    return Split(base / Path(annotations).expanduser(), base / Path(images).expanduser())
