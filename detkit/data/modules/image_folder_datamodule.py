"""A folder of images for each class, for a classifier."""

from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from detkit.data.demo.class_folders import default_demo_folder, make_demo_folder
from detkit.data.demo.detection_set import default_demo_root
from detkit.data.index.image_folder import check_same_folders, find_folders, read_folder
from detkit.data.index.regions import RegionIndex
from detkit.data.modules.classification_datamodule import ClassificationDataModule


class ImageFolderDataModule(ClassificationDataModule):
    """Images in ``root``/train/<class>/ and ``root``/val/<class>/, in any format that detkit reads.

    Without a root they are crops of the built-in demo set, of 32 x 32 pixels. The arguments are those of
    ``ClassificationDataModule``; its ``follow_links`` counts for the class folders too. A target's image_id is
    the place of the image among those of its split, by class and then by name, from 0.
    """

    @override
    def read_splits(self) -> dict[str, RegionIndex]:
        root = self._find_root()
        indices = {
            name: read_folder(folder, root, follow_links=self.follow_links)
            for name, folder in find_folders(root).items()
        }
        for name, index in indices.items():
            rank_zero_info(f"{name}: {index.report}")
        if "train" in indices:
            check_same_folders(indices["train"], indices["val"])
        return indices

    def _find_root(self) -> str:
        if self.root is not None:
            return self.root
        folder = make_demo_folder(default_demo_folder(), default_demo_root())
        rank_zero_info(f"the demo image folder lies in {folder}")
        return str(folder)
