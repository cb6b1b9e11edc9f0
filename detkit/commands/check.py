"""Check a data set: errors that end a training, faults that are repaired in memory, and notices.

detkit check data.root=/data/coco
detkit check data.root=/data/coco split=train,val decode=true html=report.html
detkit check data.root=/data data.train_annotations=a.json data.train_images=photos --json
The exit code is 65 if there is an error. No file of the data set is changed.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from detkit import recipe
from detkit.commands.help import asks_for_help, print_help
from detkit.errors import DataError, RecipeError
from detkit.recipe.options import read_options

SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True)
class DataPaths:
    """The paths of the data, as in a recipe.

    Args:
        root: folder of the data set; null: the built-in demo set.
        train_annotations: COCO file of the training split, relative to the root.
        train_images: folder of its images, relative to the root.
        val_annotations: COCO file of the validation split, relative to the root.
        val_images: folder of its images, relative to the root.
        test_annotations: COCO file of the test split, relative to the root.
        test_images: folder of its images, relative to the root.
        follow_links: allow symbolic links to files outside of the root.
    """

    root: str | None = field(default=None, metadata={"exists": DataError})
    train_annotations: str | None = None
    train_images: str | None = None
    val_annotations: str | None = None
    val_images: str | None = None
    test_annotations: str | None = None
    test_images: str | None = None
    follow_links: bool = False


@dataclass(frozen=True)
class CheckOptions:
    """The options of ``detkit check``.

    Args:
        split: splits that must exist; without it all splits under the root, or those that a training uses.
        decode: decode every image, on all cores.
        html: file for a report with pictures.
        json: print every finding and its places as JSON.
    """

    data: DataPaths = DataPaths()
    split: tuple[SplitName, ...] = ()
    decode: bool = False
    html: Path | None = None
    json: bool = False


def main(argv: list[str]) -> None:
    """Check all splits and print the findings."""
    if not argv or asks_for_help(argv):
        return print_help(__doc__, CheckOptions)
    options, _ = read_options(CheckOptions, argv)
    paths, root = paths_of_splits(options), options.data.root
    from detkit.data.checking.check import check_splits  # imports torch, so only after the checks
    from detkit.data.checking.page import write_html
    from detkit.data.checking.show import show, to_json
    from detkit.data.checking.splits_of_run import find_splits_or_demo

    splits = find_splits_or_demo(root, paths, options.split)
    checked = check_splits(splits, root, follow_links=options.data.follow_links, decode=options.decode)
    if options.html:
        write_html(options.html, checked)
    if options.json:
        print(to_json(checked))
    else:
        show(checked, recipe.console(), options.html)
    if any(split.index is None for split in checked.values()):
        sys.exit(DataError.exit_code)
    return None


def paths_of_splits(options: CheckOptions) -> dict[str, tuple[str | None, str | None]]:
    """Annotations and images of each split to check; test is left out if only train and val are given.

    Raises:
        RecipeError: if annotations are given without images, or images without annotations.
    """
    data = options.data
    paths: dict[str, tuple[str | None, str | None]] = {
        "train": (data.train_annotations, data.train_images),
        "val": (data.val_annotations, data.val_images),
        "test": (data.test_annotations, data.test_images),
    }
    wanted = {name: paths[name] for name in options.split or get_args(SplitName)}
    for name, (annotations, images) in wanted.items():
        if bool(annotations) != bool(images):
            raise RecipeError(
                f"data.{name}_annotations and data.{name}_images must be given together; "
                f"got {annotations!r}, {images!r}"
            )
    if not options.split and all(paths["train"]) and all(paths["val"]) and not all(paths["test"]):
        del wanted["test"]
    return wanted
