"""A drawn data set whose pixels tell the class: red, green and blue boxes on white, and class folders of one colour."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
CATEGORY_IDS = {"red": 3, "green": 7, "blue": 8}
SIZE_HW = (100, 160)
# (colour, xywh, crowd) of each image; the file lists the second image's box first
BOXES = {
    20: [("red", (10, 20, 40, 30), 0), ("green", (100, 0, 60, 50), 0), ("blue", (60, 60, 4, 30), 0)],
    21: [("blue", (30, 30, 50, 50), 0), ("red", (0, 80, 160, 20), 1)],
    22: [],
}


def write_coco(root: Path, split: str, boxes: dict[int, list[Any]] | None = None) -> Path:
    """The split in the plain layout, and its annotation file."""
    boxes = BOXES if boxes is None else boxes
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    annotations = []
    for image_id in sorted(boxes, key=lambda number: number != 21):
        image = np.full((*SIZE_HW, 3), 255, np.uint8)
        for colour, (x, y, width, height), crowd in boxes[image_id]:
            image[y : y + height, x : x + width] = COLOURS[colour]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": CATEGORY_IDS[colour],
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": crowd,
                }
            )
        write_image(root / split / f"{image_id}.png", image)
    height, width = SIZE_HW
    images = [{"id": number, "file_name": f"{number}.png", "height": height, "width": width} for number in boxes]
    categories = [{"id": number, "name": name} for name, number in CATEGORY_IDS.items()]
    document = {"images": images, "annotations": annotations, "categories": categories}
    file = root / "annotations" / f"instances_{split}.json"
    file.write_text(json.dumps(document))
    return file


def write_folder(root: Path, split: str, counts: dict[str, int], size_hw: tuple[int, int] = (24, 40)) -> Path:
    """A class folder of plain images for each colour; the pictures of a class differ in their brightness."""
    for colour, count in counts.items():
        (root / split / colour).mkdir(parents=True)
        for number in range(count):
            rgb = np.array(COLOURS[colour]) * (200 + number % 50) // 255
            write_image(root / split / colour / f"{number:03d}.png", np.full((*size_hw, 3), rgb, np.uint8))
    return root / split


def write_image(path: Path, image: np.ndarray) -> None:
    cv2.imwrite(str(path), np.ascontiguousarray(image[..., ::-1]))
