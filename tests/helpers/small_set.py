"""A data set of drawn rectangles: each box is a white rectangle on black, so pixels tell where boxes are."""

import json
from pathlib import Path

import cv2
import numpy as np

from detkit.data.index.coco_index import CocoIndex, load_index

CLASS_NAMES = ("thing", "other")


def write_split(
    root: Path,
    split: str,
    num_images: int,
    *,
    size_hw: tuple[int, int] = (96, 128),
    suffix: str = "png",
    crowd: bool = False,
    class_names: tuple[str, ...] = CLASS_NAMES,
) -> None:
    """Images with row % 3 boxes each (and a crowd region if asked), in the plain layout; ids are 10 + row."""
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    rng = np.random.default_rng(num_images)
    images, annotations = [], []
    height, width = size_hw
    for row in range(num_images):
        image = np.zeros((height, width, 3), np.uint8)
        images.append({"id": 10 + row, "file_name": f"{row}.{suffix}", "height": height, "width": width})
        for column in range(row % 3):
            x1 = int(width * (0.1 + 0.45 * column) + rng.integers(width // 10))
            y1 = int(rng.integers(height // 10, height // 3))
            box_width, box_height = (
                int(rng.integers(width // 6, width // 4)),
                int(rng.integers(height // 4, height // 2)),
            )
            image[y1 : y1 + box_height, x1 : x1 + box_width] = 255
            annotations.append(_annotation(len(annotations), 10 + row, (x1, y1, box_width, box_height), crowd=False))
        if crowd:
            annotations.append(
                _annotation(len(annotations), 10 + row, (0, height // 2, width // 2, height // 2), crowd=True)
            )
        cv2.imwrite(str(root / split / f"{row}.{suffix}"), image)
    categories = [{"id": 5 + 2 * number, "name": name} for number, name in enumerate(class_names)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))


def read_split(root: Path, split: str) -> CocoIndex:
    return load_index(root / "annotations" / f"instances_{split}.json", root / split)


def _annotation(number: int, image_id: int, xywh: tuple[int, int, int, int], *, crowd: bool) -> dict[str, object]:
    return {
        "id": number + 1,
        "image_id": image_id,
        "category_id": 5 + 2 * (number % 2),
        "bbox": list(xywh),
        "area": xywh[2] * xywh[3],
        "iscrowd": int(crowd),
    }
