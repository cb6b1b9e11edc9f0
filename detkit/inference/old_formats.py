"""Conversion of the metadata of older detector files to the current format."""

from dataclasses import fields

from detkit.data.augment.augmentation import Augmentation, ClassAugmentation
from detkit.inference.metadata import Notes

# Data modules whose keys contained those of the augmentation in files of format 1.
AUGMENTATION_OF = {
    "detkit.data.CocoDataModule": Augmentation,
    "detkit.data.CropDataModule": ClassAugmentation,
    "detkit.data.ImageFolderDataModule": ClassAugmentation,
}


def in_current_format(metadata: Notes) -> Notes:
    """Metadata of format 1 with the augmentation moved into its own node, as in the current format."""
    recipe = metadata["recipe"]
    data = recipe.get("data", {})
    augmentation = AUGMENTATION_OF.get(str(data.get("_target_")))
    if augmentation is None or "augmentation" in data:
        return metadata
    moved = {field.name: data[field.name] for field in fields(augmentation) if field.name in data}
    target = f"detkit.data.augment.{augmentation.__name__}"
    kept = {key: value for key, value in data.items() if key not in moved}
    return {**metadata, "recipe": {**recipe, "data": {**kept, "augmentation": {"_target_": target, **moved}}}}
