"""Random COCO files, and what pycocotools itself says of them."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detkit.ops.targets import pack_targets
from detkit.types import Detections, GroundTruth, Targets
from tests.helpers.targets import target

NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
NAMES += ("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large")


def random_dataset(rng: np.random.Generator) -> dict[str, Any]:
    """Ids out of order and with gaps, crowds, images and classes without boxes, areas of masks."""
    category_ids = rng.permutation(90)[: rng.integers(1, 6)].tolist()
    image_ids = rng.permutation(1000)[: rng.integers(1, 12)].tolist()
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 400, "width": 600} for i in image_ids]
    annotations = []
    for number in rng.permutation(int(rng.integers(0, 60))).tolist():
        x, y, w, h = (rng.random(4) * [500, 300, 200, 200]).tolist()
        annotations.append(
            {
                "id": 3 * number + 1,
                "image_id": int(rng.choice(image_ids)),
                "category_id": int(rng.choice(category_ids)),
                "bbox": [x, y, w, h],
                "area": w * h * rng.choice([1.0, 0.5, 0.03]),
                "iscrowd": int(rng.random() < 0.15),
            }
        )
    categories = [{"id": i, "name": f"class {i}"} for i in category_ids]
    return {"images": images, "annotations": annotations, "categories": categories}


def random_detections(rng: np.random.Generator, dataset: dict[str, Any]) -> dict[int, np.ndarray]:
    """Image id to (K, 6) float32 xyxy, score, class index: truth shaken, doubled and mislabelled, and noise.

    Scores have one decimal, so that many are equal within and between images.
    """
    class_of = {category["id"]: index for index, category in enumerate(dataset["categories"])}
    rows: dict[int, list[list[float]]] = {}
    for annotation in dataset["annotations"]:
        for _ in range(rng.integers(0, 3)):
            x, y, w, h = np.array(annotation["bbox"]) + rng.normal(0, 4, 4)
            label = class_of[annotation["category_id"]] if rng.random() < 0.8 else rng.integers(len(class_of))
            row = [x, y, x + abs(w), y + abs(h), round(rng.random(), 1), label]
            rows.setdefault(annotation["image_id"], []).append(row)
    noisy = rng.choice([image["id"] for image in dataset["images"]])
    for _ in range(rng.choice([0, 150])):  # more than maxDets
        x, y, w, h = rng.random(4) * [500, 300, 100, 100]
        row = [x, y, x + w, y + h, round(rng.random(), 1), rng.integers(len(class_of))]
        rows.setdefault(int(noisy), []).append(row)
    return {i: np.clip(found, 0, [600, 400, 600, 400, 1, 99]).astype(np.float32) for i, found in rows.items()}


def ground_truth_of(dataset: dict[str, Any]) -> GroundTruth:
    """The arrays of a data set, in the order of its file."""
    image_ids = [image["id"] for image in dataset["images"]]
    category_ids = [category["id"] for category in dataset["categories"]]
    annotations = dataset["annotations"]
    boxes_xywh = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
    return GroundTruth(
        image_ids=np.array(image_ids, dtype=np.int64),
        sizes_hw=np.array([[image["height"], image["width"]] for image in dataset["images"]], dtype=np.int32),
        boxes_xywh=boxes_xywh,
        areas=np.array([a.get("area", a["bbox"][2] * a["bbox"][3]) for a in annotations], dtype=np.float64),
        crowd=np.array([a.get("iscrowd", 0) for a in annotations], dtype=bool),
        labels=np.array([category_ids.index(a["category_id"]) for a in annotations], dtype=np.int64),
        image_rows=np.array([image_ids.index(a["image_id"]) for a in annotations], dtype=np.int64),
        category_ids=np.array(category_ids, dtype=np.int64),
        class_names=tuple(category["name"] for category in dataset["categories"]),
    )


def targets_of(
    dataset: dict[str, Any], scale_xy: tuple[float, float] = (1.0, 1.0), rows: slice = slice(None)
) -> Targets:
    """Of some images; the boxes are left out, the metric does not look at them."""
    found = [
        target([], [], image_id=image["id"], image_hw=(image["height"], image["width"]))._replace(scale_xy=scale_xy)
        for image in dataset["images"][rows]
    ]
    return pack_targets(found)


def detections_of(found: dict[int, np.ndarray], image_ids: list[int]) -> list[Detections]:
    """Detections of these images in their order, none for an image that is not in ``found``."""
    rows = [torch.from_numpy(found.get(image_id, np.zeros((0, 6), np.float32))) for image_id in image_ids]
    return [Detections(image[:, :4], image[:, 4], image[:, 5].long()) for image in rows]


def coco_results(found: dict[int, np.ndarray], category_ids: list[int]) -> list[dict[str, Any]]:
    """The JSON that a user would write of them."""
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[int(label)],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for image_id, rows in found.items()
        for x1, y1, x2, y2, score, label in rows.tolist()
    ]


def pycocotools_says(annotations: Path, results: list[dict[str, Any]]) -> tuple[dict[str, float], dict[str, float]]:
    """The twelve numbers of ``summarize`` and the AP of each class, of a file on disk; results must not be empty."""
    results_file = annotations.with_name("results.json")
    results_file.write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(results_file)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    per_class = {}
    for column, category_id in enumerate(evaluation.params.catIds):
        precision = evaluation.eval["precision"][:, :, column, 0, 2]
        measured = precision[precision > -1]
        per_class[truth.cats[category_id]["name"]] = measured.mean() if len(measured) else -1.0
    return dict(zip(NAMES, evaluation.stats.tolist(), strict=True)), per_class
