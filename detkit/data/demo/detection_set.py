"""The demo set, drawn at the first use and stored in COCO layout, equal on all machines."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from detkit.data.demo.scene import CLASS_NAMES, Scene, draw_scene
from detkit.data.demo.whole_folder import DemoSet
from detkit.data.images.cache_folder import cache_folder
from detkit.errors import DataError

VERSION = 1  # every change of the pictures needs a new version, which gets a new folder
SPLITS = {"train": 240, "val": 60}  # images


def default_demo_root() -> Path:
    """The path of the demo set: DETKIT_DEMO in the environment, else a folder in the user's cache.

    Raises:
        DataError: if the user has no home folder and the variable is not set.
    """
    if chosen := os.environ.get("DETKIT_DEMO"):
        return Path(chosen).expanduser()
    try:
        cache = cache_folder()
    except RuntimeError as error:
        raise DataError("there is no home folder for the demo set; set DETKIT_DEMO to a folder for it") from error
    return cache / f"demo-v{VERSION}"


def make_demo(folder: str | Path) -> Path:
    """The folder with the demo set, which is drawn in some seconds if it does not exist yet.

    It is drawn in a temporary folder, which is renamed at the end, so several processes may call this at once.

    Raises:
        DataError: if it cannot be written, or if the folder holds something else.
    """
    folder = Path(folder).expanduser()
    DemoSet("demo set", {"version": VERSION, **SPLITS}, _write).make(folder)
    return folder


def _write(folder: Path) -> None:
    (folder / "annotations").mkdir()
    for number, (split, count) in enumerate(SPLITS.items()):
        (folder / split).mkdir()
        with ThreadPoolExecutor() as threads:  # numpy and cv2 release the interpreter's lock
            rngs = (np.random.Generator(np.random.Philox([number, row])) for row in range(count))
            scenes = list(threads.map(draw_scene, rngs))
        for row, scene in enumerate(scenes):
            _, jpeg = cv2.imencode(".jpg", scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
            (folder / split / _file_name(row)).write_bytes(jpeg.tobytes())
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(_document(scenes)))


def _document(scenes: list[Scene]) -> dict[str, object]:
    """COCO annotations: ids from 1, boxes xywh."""
    images = [
        {"id": row + 1, "file_name": _file_name(row), "height": scene.image.shape[0], "width": scene.image.shape[1]}
        for row, scene in enumerate(scenes)
    ]
    annotations = [
        {
            "image_id": row + 1,
            "category_id": int(label) + 1,
            "bbox": [int(x1), int(y1), int(x2 - x1), int(y2 - y1)],
            "area": int(area),
            "iscrowd": int(crowd),
        }
        for row, scene in enumerate(scenes)
        for (x1, y1, x2, y2), label, area, crowd in zip(
            scene.boxes, scene.labels, scene.areas, scene.crowd, strict=True
        )
    ]
    return {
        "info": {"description": "detkit's demo set: drawn parts on a workbench", "version": str(VERSION)},
        "images": images,
        "annotations": [{"id": number, **record} for number, record in enumerate(annotations, start=1)],
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(CLASS_NAMES)],
    }


def _file_name(row: int) -> str:
    return f"{row:06d}.jpg"
