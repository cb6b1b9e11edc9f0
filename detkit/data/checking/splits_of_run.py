"""The splits of a run: their paths, and their indices after the data check."""

from collections.abc import Sequence
from pathlib import Path

from detkit.data.checking.check import check_splits
from detkit.data.demo.detection_set import default_demo_root, make_demo
from detkit.data.formats.layout import Split, find_layout
from detkit.data.index.coco_index import CocoIndex
from detkit.errors import DataError

# For each split the annotation file and the image folder that the user set, or None.
Explicit = dict[str, tuple[str | None, str | None]]


def find_splits(root: str | None, explicit: Explicit, needed: Sequence[str] = ("val",)) -> dict[str, Split]:
    """The splits that the user names, with paths relative to ``root``, and the other splits that ``root`` holds.

    Raises:
        DataError: if a split that is needed is missing, or ``root`` holds nothing.
    """
    named = {
        name: _split(root, annotations, images)
        for name, (annotations, images) in explicit.items()
        if annotations and images
    }
    found = find_layout(root) if root is not None and len(named) < len(explicit) else {}
    splits = {name: (found | named)[name] for name in explicit if name in found | named}
    for name in needed:
        if name not in splits:
            raise no_split(name, root, found.get("train") if name == "val" else None)
    return splits


def no_split(name: str, root: str | None, other: Split | None = None) -> DataError:
    """The error for a missing split; it may propose another split instead."""
    where = "" if root is None else f" under {root}"
    remedy = f"name it by data.{name}_annotations and data.{name}_images"
    if other is not None and root is not None:
        annotations, images = (path.relative_to(Path(root).expanduser()) for path in other)
        remedy += (
            f"; data.{name}_annotations={annotations} data.{name}_images={images} evaluates on the training images, "
            "which says nothing about new images"
        )
    return DataError(f"there is no {name} split{where}; {remedy}")


def find_splits_or_demo(root: str | None, explicit: Explicit, needed: Sequence[str] = ("val",)) -> dict[str, Split]:
    """As ``find_splits``; without a root and paths these are the splits of the demo set."""
    if root is None and not any(any(paths) for paths in explicit.values()):
        from lightning.pytorch.utilities import rank_zero_info  # slow to import

        folder = make_demo(default_demo_root())
        rank_zero_info(f"the demo set lies in {folder}")
        root = str(folder)
    return find_splits(root, explicit, needed)


def load_indices(
    splits: dict[str, Split], root: str | None = None, *, follow_links: bool = False
) -> dict[str, CocoIndex]:
    """Read, check and compare the splits, and log what was found in each.

    Args:
        splits: by name.
        root: of the data set; an image outside it is an error. None: the split's folder of images.
        follow_links: whether symbolic links may lead out of the root.

    Raises:
        DataError: one for all errors of all splits.
    """
    from lightning.pytorch.utilities import rank_zero_info

    checked = check_splits(splits, root, follow_links=follow_links)
    if errors := [str(split.error()) for split in checked.values() if split.index is None]:
        raise DataError("\n".join(errors))
    for name, split in checked.items():
        rank_zero_info(f"{name}: {split.report}")
    return {name: split.index for name, split in checked.items() if split.index is not None}


def _split(root: str | None, annotations: str, images: str) -> Split:
    base = Path(root or "").expanduser()
    return Split(base / Path(annotations).expanduser(), base / Path(images).expanduser())
