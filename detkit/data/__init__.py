"""Data sets in COCO format: their index, their images, and the stream of samples."""

from typing import TYPE_CHECKING, Any

from detkit.data.coco import CocoIndex, load_index
from detkit.data.dataset import DetectionDataset
from detkit.data.decode_image import decode_image
from detkit.data.demo import default_demo_root, make_demo
from detkit.data.image_header import ImageHeader, read_header
from detkit.data.layout import Split, find_layout
from detkit.data.sampler import InOrderSampler, KeySampler, SampleKey
from detkit.data.transforms import letterbox

if TYPE_CHECKING:
    from detkit.data.datamodule import CocoDataModule

__all__ = [
    "CocoDataModule",
    "CocoIndex",
    "DetectionDataset",
    "ImageHeader",
    "InOrderSampler",
    "KeySampler",
    "SampleKey",
    "Split",
    "decode_image",
    "default_demo_root",
    "find_layout",
    "letterbox",
    "load_index",
    "make_demo",
    "read_header",
]


def __getattr__(name: str) -> Any:
    """The data module imports lightning, which takes seconds and which prediction does not need."""
    if name == "CocoDataModule":
        from detkit.data.datamodule import CocoDataModule

        return CocoDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
