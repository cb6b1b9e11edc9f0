"""Detector files of older formats, as files have it today."""

from dataclasses import fields

from detkit.data.augment.augmentation import Augmentation, ClassAugmentation
from detkit.inference.metadata import Notes

# Data modules whose augmentation lay flat among their keys in files of format 1.
AUGMENTATION_OF = {
    "detkit.data.CocoDataModule": Augmentation,
    "detkit.data.CropDataModule": ClassAugmentation,
    "detkit.data.ImageFolderDataModule": ClassAugmentation,
}


def in_todays_format(metadata: Notes) -> Notes:
    """The metadata of a detector file of format 1 as files have it today: the augmentation is a part of its own."""
    recipe = metadata["recipe"]
    data = recipe.get("data", {})
    augmentation = AUGMENTATION_OF.get(str(data.get("_target_")))
    if augmentation is None or "augmentation" in data:
        return metadata
    moved = {field.name: data[field.name] for field in fields(augmentation) if field.name in data}
    target = f"detkit.data.augment.{augmentation.__name__}"
    kept = {key: value for key, value in data.items() if key not in moved}
    return {**metadata, "recipe": {**recipe, "data": {**kept, "augmentation": {"_target_": target, **moved}}}}
