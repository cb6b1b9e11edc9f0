"""Data sets in COCO format and image folders: their index, their images, and the stream of samples."""

from typing import TYPE_CHECKING

from detkit.lazy import lazy_exports

if TYPE_CHECKING:
    from detkit.data.demo.detection_set import default_demo_root, make_demo
    from detkit.data.formats.layout import Split, find_layout
    from detkit.data.images.decode import decode_image
    from detkit.data.images.header import ImageHeader, read_header
    from detkit.data.images.resize import Resize, letterbox, squash, to_input
    from detkit.data.index.coco_index import CocoIndex, load_index
    from detkit.data.loading.detection_dataset import DetectionDataset
    from detkit.data.loading.sampler import InOrderSampler, KeySampler, SampleKey
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

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "CocoDataModule": "detkit.data.modules.coco_datamodule",
        "CocoIndex": "detkit.data.index.coco_index",
        "CropDataModule": "detkit.data.modules.crop_datamodule",
        "DetectionDataset": "detkit.data.loading.detection_dataset",
        "ImageFolderDataModule": "detkit.data.modules.image_folder_datamodule",
        "ImageHeader": "detkit.data.images.header",
        "InOrderSampler": "detkit.data.loading.sampler",
        "KeySampler": "detkit.data.loading.sampler",
        "Resize": "detkit.data.images.resize",
        "SampleKey": "detkit.data.loading.sampler",
        "Split": "detkit.data.formats.layout",
        "decode_image": "detkit.data.images.decode",
        "default_demo_root": "detkit.data.demo.detection_set",
        "find_layout": "detkit.data.formats.layout",
        "letterbox": "detkit.data.images.resize",
        "load_index": "detkit.data.index.coco_index",
        "make_demo": "detkit.data.demo.detection_set",
        "read_header": "detkit.data.images.header",
        "squash": "detkit.data.images.resize",
        "to_input": "detkit.data.images.resize",
    },
)
