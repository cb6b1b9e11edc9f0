"""A split whose objects cover most of their images, so that a detector that is not trained finds some of them."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SIZES_HW = ((64, 96), (96, 64), (80, 80), (64, 64), (50, 100))

CATEGORIES = [{"id": 5, "name": "cat"}, {"id": 2, "name": "dog"}]


def write_split(root: Path, split: str, categories: list[dict[str, Any]] = CATEGORIES) -> Path:
    """Five images with an object of each class that covers most of the image."""
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    rng = np.random.default_rng(len(split))
    images, annotations = [], []
    for number, (height, width) in enumerate(SIZES_HW):
        cv2.imwrite(str(root / split / f"{number}.png"), rng.integers(0, 255, (height, width, 3)))
        images.append({"id": 10 - number, "file_name": f"{number}.png", "height": height, "width": width})
        for category in categories:
            x, y = (rng.random(2) * 8).tolist()
            box = [x, y, width - x - 5, height - y - 5]
            annotation = {"id": len(annotations) + 1, "image_id": 10 - number, "category_id": category["id"]}
            annotations.append({**annotation, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    path = root / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def printed(output: str) -> dict[str, float]:
    """First and second word of each line that has a number there."""
    rows = (line.split() for line in output.splitlines())
    return {row[0]: float(row[1]) for row in rows if len(row) > 1 and row[1].replace(".", "").isdigit()}
