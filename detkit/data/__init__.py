"""Data sets in COCO format and image folders: their index, their images, and the stream of samples."""

import importlib
from typing import TYPE_CHECKING, Any

from detkit.data.demo.detection_set import default_demo_root, make_demo
from detkit.data.formats.layout import Split, find_layout
from detkit.data.images.decode import decode_image
from detkit.data.images.header import ImageHeader, read_header
from detkit.data.images.resize import Resize, letterbox, squash, to_input
from detkit.data.index.coco_index import CocoIndex, load_index
from detkit.data.loading.detection_dataset import DetectionDataset
from detkit.data.loading.sampler import InOrderSampler, KeySampler, SampleKey

if TYPE_CHECKING:
    from detkit.data.modules.coco_datamodule import CocoDataModule
    from detkit.data.modules.crop_datamodule import CropDataModule
    from detkit.data.modules.image_folder_datamodule import ImageFolderDataModule

__all__ = [
    "CocoDataModule",
    "CocoIndex",
    "CropDataModule",
    "DetectionDataset",
    "ImageFolderDataModule",
    "ImageHeader",
    "InOrderSampler",
    "KeySampler",
    "Resize",
    "SampleKey",
    "Split",
    "decode_image",
    "default_demo_root",
    "find_layout",
    "letterbox",
    "load_index",
    "make_demo",
    "read_header",
    "squash",
    "to_input",
]


_DATA_MODULES = {  # they import lightning, which takes seconds and which prediction does not need
    "CocoDataModule": "detkit.data.modules.coco_datamodule",
    "CropDataModule": "detkit.data.modules.crop_datamodule",
    "ImageFolderDataModule": "detkit.data.modules.image_folder_datamodule",
}


def __getattr__(name: str) -> Any:
    """A data module, imported when it is asked for."""
    if name in _DATA_MODULES:
        return getattr(importlib.import_module(_DATA_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
