"""The comparison of splits: different categories, images that are in both, classes that only one of them has."""

from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np

from detkit.data.findings import Findings, Place
from detkit.data.images.header_cache import read_digests, read_ends, read_sizes
from detkit.data.index.coco_index import CocoIndex
from detkit.errors import DataError

# Values that are equal for equal files; each reads more of a file than the one before and takes longer.
_KEYS: tuple[Callable[[Path, list[str]], list[int | DataError] | list[str | DataError]], ...] = (
    read_sizes,
    read_ends,
    read_digests,
)


def compare_splits(indices: Mapping[str, CocoIndex], findings: Mapping[str, Findings]) -> None:
    """Add to the findings of each split its differences to the splits before it, and the images in both."""
    for (first_name, first), (name, second) in combinations(indices.items(), 2):
        _compare_categories(first_name, first, name, second, findings[name])
        _compare_files(first_name, first, name, second, findings[name])
    if "train" in indices and len(indices) > 1:
        _compare_classes(indices, findings)


def _compare_categories(first_name: str, first: CocoIndex, name: str, second: CocoIndex, findings: Findings) -> None:
    """Class indices come from the category ids of each file, so all files must have the same ids and names."""
    one, other = (dict(zip(i.category_ids.tolist(), i.class_names, strict=True)) for i in (first, second))
    differing = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    findings.error(
        "categories-differ",
        f"categories that {first_name} and {name} do not share",
        len(differing),
        (Place(_differs(key, (first_name, one.get(key)), (name, other.get(key)))) for key in differing),
        f"{first_name} and {name} must list the same categories; copy those of one annotation file into the other",
    )


def _differs(key: int, *names: tuple[str, str | None]) -> str:
    stated = [f"{class_name!r} in {split}" if class_name else f"missing in {split}" for split, class_name in names]
    return f"category {key} is {', '.join(stated)}"


def _compare_classes(indices: Mapping[str, CocoIndex], findings: Mapping[str, Findings]) -> None:
    learned = _names_with_boxes(indices["train"])
    for name, index in indices.items():
        alone = [class_name for class_name in _names_with_boxes(index) if class_name not in learned]
        what = f"classes with boxes in {name} and none in train, so never learned"
        findings[name].notice("class-not-in-train", what, len(alone), map(Place, alone))
    measured = set().union(*(_names_with_boxes(index) for name, index in indices.items() if name != "train"))
    alone = [class_name for class_name in learned if class_name not in measured]
    others = " and ".join(name for name in indices if name != "train")
    what = f"classes with boxes in train and none in {others}, so never measured"
    findings["train"].notice("class-only-in-train", what, len(alone), map(Place, alone))


def _names_with_boxes(index: CocoIndex) -> list[str]:
    return [index.class_names[label] for label in np.unique(index.ground_truth().labels)]


def _compare_files(first_name: str, first: CocoIndex, name: str, second: CocoIndex, findings: Findings) -> None:
    same = _same_files(first, second)
    names = second.file_names()
    findings.notice(
        "image-in-two-splits",
        f"images of {name} that are in {first_name} too, byte for byte",
        len(same),
        (Place(f"{names[row]} is {other}", names[row], int(second.image_ids[row])) for row, other in same.items()),
        f"results on them say nothing about new images; remove them from {first_name} or {name}",
    )


def _same_files(first: CocoIndex, second: CocoIndex) -> dict[int, str]:
    """Row of each file of the second split whose content is in the first split too, and its name there."""
    ours, theirs = first.file_names(), second.file_names()
    if first.folder.resolve() == second.folder.resolve():
        there = set(ours)
        same = {row: name for row, name in enumerate(theirs) if name in there}
    else:
        same = {}
    left, right = list(range(len(ours))), [row for row in range(len(theirs)) if row not in same]
    found: dict[int, str] = {}
    for read in _KEYS:
        left_keys = dict(zip(left, read(first.folder, [ours[row] for row in left]), strict=True))
        right_keys = dict(zip(right, read(second.folder, [theirs[row] for row in right]), strict=True))
        twins = {key: ours[row] for row, key in left_keys.items()}
        shared = twins.keys() & set(right_keys.values())
        left, right = ([row for row, key in keys.items() if key in shared] for keys in (left_keys, right_keys))
        found = {row: twins[right_keys[row]] for row in right}
    return dict(sorted((same | found).items()))
