"""The demo image folder: crops of the demo set as small images, written at the first use, equal on all machines."""

import functools
from pathlib import Path

import cv2
import numpy as np

from detkit.data.demo.detection_set import VERSION as SCENES_VERSION
from detkit.data.demo.detection_set import default_demo_root, make_demo
from detkit.data.demo.whole_folder import DemoSet
from detkit.data.formats.layout import find_layout
from detkit.data.images.decode import decode_image
from detkit.data.index.coco_index import load_index
from detkit.data.index.crops import crop_regions
from detkit.data.index.regions import RegionIndex

VERSION = 1  # every change of the crops needs a new version, which gets a new folder
SIDE_PX = 32
MIN_BOX_PX = 12  # the classes of smaller parts cannot be distinguished


def default_demo_folder() -> Path:
    """The path of the demo image folder, which is beside the demo set.

    Raises:
        DataError: as ``default_demo_root``.
    """
    root = default_demo_root()
    return root.with_name(f"{root.name}-crops-v{VERSION}")


def make_demo_folder(folder: str | Path, scenes: str | Path) -> Path:
    """The folder with train/<class>/ and val/<class>/ of PNG images, which is written if it does not exist yet.

    It appears only when it is complete, so several processes may call this at once.

    Args:
        folder: of the images.
        scenes: folder of the demo set that they are cut from, which is drawn if it does not exist yet.

    Raises:
        DataError: if one of them cannot be written, or if the folder holds something else.
    """
    folder = Path(folder).expanduser()
    version = {"version": VERSION, "scenes": SCENES_VERSION}
    DemoSet("demo image folder", version, functools.partial(_write, scenes=scenes)).make(folder)
    return folder


def _write(folder: Path, scenes: str | Path) -> None:
    for name, split in find_layout(make_demo(scenes)).items():
        crops = crop_regions(load_index(*split), split.annotations, min_box_px=MIN_BOX_PX)
        for class_name in crops.class_names:
            (folder / name / class_name).mkdir(parents=True)
        squares = _squares(crops)
        for image_row in np.unique(crops.image_rows):
            image = decode_image(crops.path(image_row))
            for row in np.flatnonzero(crops.image_rows == image_row):
                path = folder / name / crops.class_names[crops.labels[row]] / f"{row:06d}.png"
                _, png = cv2.imencode(".png", _small(image, squares[row])[..., ::-1])
                path.write_bytes(png.tobytes())


def _small(image: np.ndarray, square: np.ndarray) -> np.ndarray:
    x1, y1, x2, y2 = square.tolist()
    smoothly = cv2.INTER_AREA if x2 - x1 >= SIDE_PX else cv2.INTER_LINEAR
    return cv2.resize(image[y1:y2, x1:x2], (SIDE_PX, SIDE_PX), interpolation=smoothly)


def _squares(index: RegionIndex) -> np.ndarray:
    """(N, 4) the smallest square around each region, moved into the image so that no padding is needed."""
    assert index.regions is not None, "crops have regions"
    sizes_hw = index.sizes_hw[index.image_rows]
    low, high = index.regions[:, :2], index.regions[:, 2:]
    side = np.minimum((high - low).max(axis=1), sizes_hw.min(axis=1))[:, None]
    start = np.clip((low + high - side) // 2, 0, sizes_hw[:, ::-1] - side)
    return np.concatenate([start, start + side], axis=1).astype(np.int32)
