"""Where the splits of a COCO-format data set lie, for the data modules that read one."""

from dataclasses import dataclass

from detkit.data.checking.splits_of_run import Explicit


@dataclass(kw_only=True, eq=False, repr=False)
class CocoSplits:
    """Annotation files and image folders that a user names because the data set has a layout of its own.

    Args:
        train_annotations: annotation file, relative to ``root``, where the layout is another.
        train_images: folder of its images.
        val_annotations: the same for validation.
        val_images: the same for validation.
    """

    train_annotations: str | None = None
    train_images: str | None = None
    val_annotations: str | None = None
    val_images: str | None = None

    @property
    def explicit(self) -> Explicit:
        """Annotation file and image folder of each split, as they are named."""
        return {
            "train": (self.train_annotations, self.train_images),
            "val": (self.val_annotations, self.val_images),
        }

    def split_faults(self) -> list[str]:
        """Splits of which only one of the two is named."""
        return [
            f"{name}_annotations and {name}_images must be given together; got {annotations!r}, {images!r}"
            for name, (annotations, images) in self.explicit.items()
            if (annotations is None) != (images is None)
        ]
