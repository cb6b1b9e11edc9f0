"""The train and validation split of a run: where they lie, and that they fit each other."""

from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from detkit.data.coco import CocoIndex, load_index
from detkit.data.demo import default_demo_root, make_demo
from detkit.data.layout import Split, find_layout
from detkit.errors import DataError

# of each split: annotation file and image folder, where the user names them
Explicit = dict[str, tuple[str | None, str | None]]


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


def find_splits_or_demo(root: str | None, explicit: Explicit) -> dict[str, Split]:
    """As ``find_splits``; the splits of the demo set, where nothing is named."""
    if root is None and not any(any(paths) for paths in explicit.values()):
        folder = make_demo(default_demo_root())
        rank_zero_info(f"the demo set lies in {folder}")
        root = str(folder)
    return find_splits(root, explicit)


def load_indices(
    splits: dict[str, Split], root: str | None = None, *, follow_links: bool = False
) -> dict[str, CocoIndex]:
    """Read and check the splits, and report once what is odd in each.

    Raises:
        DataError: if a split cannot be used, or they have different classes.
    """
    indices = {name: load_index(*split, root, follow_links=follow_links) for name, split in splits.items()}
    for name, index in indices.items():
        rank_zero_info(f"{name}: {index.report}")
    if "train" in indices:
        check_same_classes(indices["train"], indices["val"])
    return indices


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
