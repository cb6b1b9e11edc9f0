"""What may be asked of the data check on a command line."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from detkit.data.checking.check import CheckedSplit, check_splits
from detkit.data.checking.splits_of_run import Explicit, find_splits_or_demo
from detkit.errors import RecipeError

SPLITS = ("train", "val", "test")
_PATHS = [f"data.{split}_{what}" for split in SPLITS for what in ("annotations", "images")]
KEYS = ("data.root", *_PATHS, "data.follow_links", "split", "decode", "html")
_FLAGS = ("data.follow_links", "decode")


class Options(NamedTuple):
    """Which splits are checked, and how."""

    root: str | None
    explicit: Explicit
    needed: tuple[str, ...]  # splits that must be there
    follow_links: bool
    decode: bool
    html: str  # where to write the report; empty: nowhere


def read_options(given: Iterable[tuple[str, Any]]) -> Options:
    """The options of a command line.

    Without ``split=`` these are all splits under the root; where train and val are both named, and test is not,
    these two, as a training would take them.

    Args:
        given: keys and values.

    Raises:
        RecipeError: if a key or a value is none of those known.
    """
    values = dict(given)
    for key, value in values.items():
        if key not in KEYS:
            raise RecipeError(f"{key}: no such key; the data check knows {', '.join(KEYS)}")
        if key in _FLAGS and not isinstance(value, bool):
            raise RecipeError(f"{key}: must be true or false; got {value!r}")
    texts = {key: str(value) for key, value in values.items() if key not in _FLAGS and value is not None}
    asked = tuple(texts["split"].split(",")) if "split" in texts else ()
    if unknown := [name for name in asked if name not in SPLITS]:
        raise RecipeError(f"split: must be one or several of {','.join(SPLITS)}; got {unknown[0]!r}")
    explicit: Explicit = {
        name: (texts.get(f"data.{name}_annotations"), texts.get(f"data.{name}_images")) for name in asked or SPLITS
    }
    for name, paths in explicit.items():
        if any(paths) and not all(paths):
            raise RecipeError(
                f"data.{name}_annotations and data.{name}_images must be given together; got {paths[0]!r}, {paths[1]!r}"
            )
    if not asked and all(explicit["train"]) and all(explicit["val"]) and not all(explicit["test"]):
        del explicit["test"]
    return Options(
        texts.get("data.root"),
        explicit,
        asked,
        values.get("data.follow_links", False),
        values.get("decode", False),
        texts.get("html", ""),
    )


def check(options: Options) -> dict[str, CheckedSplit]:
    """Check the splits, and write the report if one is asked for.

    Raises:
        DataError: if no split is found, or one that is needed is missing.
        StorageError: if the report cannot be written.
    """
    splits = find_splits_or_demo(options.root, options.explicit, options.needed)
    checked = check_splits(splits, options.root, follow_links=options.follow_links, decode=options.decode)
    if options.html:
        from detkit.data.checking.page import write_html

        write_html(Path(options.html).expanduser(), checked)
    return checked
