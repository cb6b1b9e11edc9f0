"""Checks of the metadata beside the weights of a detector, because a file may be damaged or malicious."""

from collections.abc import Iterator
from typing import Any, TypeAlias

from detkit.recipe.plan import is_node
from detkit.recipe.read import plain_fault

Notes: TypeAlias = dict[str, Any]  # metadata beside the weights; JSON values of any type until they are checked here
KEYS = ("recipe", "class_names", "image_hw")
# Largest values that a file may set; the command line may set larger ones.
LIMITS = {"image_hw": 16384, "batch_size": 4096, "val_batch_size": 4096, "num_workers": 64, "cache_mb": 65536}


def metadata_faults(metadata: Notes) -> Iterator[str]:
    """The reasons why a detector cannot be rebuilt; only the first is reliable."""
    absent = [key for key in KEYS if key not in metadata]
    if absent:
        yield f"has no {', '.join(absent)}, which are needed to rebuild a detector"
    for key in KEYS:
        if fault := plain_fault(metadata[key]):
            yield f"{key}: {fault}"
    names, image_hw, recipe = metadata["class_names"], metadata["image_hw"], metadata["recipe"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        yield "class_names: must be a list of text"
    ids = metadata.get("category_ids", list(range(len(names))))
    if not isinstance(ids, list) or [type(number) for number in ids] != [int] * len(names) or len({*ids}) < len(ids):
        yield f"category_ids: must be a whole number for each of {len(names)} classes, all different; got {ids!r:.80}"
    if not isinstance(image_hw, list) or [type(side) for side in image_hw] != [int, int] or min(image_hw) < 1:
        yield f"image_hw: must be [height, width]; got {image_hw!r:.80}"
    yield from _beyond_limits({"image_hw": image_hw}, "")
    if not isinstance(recipe, dict) or not all(is_node(recipe.get(part)) for part in ("model", "decode")):
        yield "recipe: names no model and decode"
    data = recipe.get("data", {})
    if not isinstance(data, dict):
        yield "recipe: data must hold keys and values"
    yield from _beyond_limits(data, "recipe: data.")


def _beyond_limits(values: Notes, place: str) -> Iterator[str]:
    for key, most in LIMITS.items():
        numbers = values.get(key)
        for number in numbers if isinstance(numbers, list) else [numbers]:
            if isinstance(number, int | float) and not number <= most:
                yield f"{place}{key}: a file may ask for at most {most}; got {number}"
