"""COCO average precision with the numbers of pycocotools, from detections of all batches and ranks."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import hotcoco
import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from detkit.metrics.names import distinct_names
from detkit.ops.boxes import boxes_to_original
from detkit.ops.ranks import of_all_ranks
from detkit.types import Detections, GroundTruth, Targets

AREAS = ("all", "small", "medium", "large")  # the order of both engines' area axis
MAX_DETECTIONS = (1, 10, 100)  # the order of both engines' last axis


class CocoMetric:
    """The twelve COCO numbers and the AP of each class, over the whole split.

    An image that was not passed to ``update`` counts as an image without detections. A number without ground truth is
    -1, as in pycocotools; without detections AP is 0. ``per_class`` and ``detections_json`` give the values of the last
    ``compute``, also after ``reset``.

    Note [where the numbers differ from pycocotools on the user's own file]: annotation ids are renumbered from 1 in the
    file's order, because pycocotools treats a match with annotation 0 as no match. Without an id 0 in the file the
    numbers are equal.

    Args:
        ground_truth: annotations of the split, as its file has them.
        engine: "hotcoco", or "pycocotools" (75 times slower; the tests compare with it).

    Raises:
        ValueError: if the engine is unknown.
    """

    per_class_name: ClassVar[str] = "AP"
    shown: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **{name: (name,) for name in ("AP", "AP50", "AP75")},
        "S/M/L": ("AP_small", "AP_medium", "AP_large"),
    }
    meanings: ClassVar[Mapping[str, str]] = {
        "AP": "mean over IoU 0.50, 0.55, .. 0.95",
        "AP50": "IoU 0.50",
        "AP75": "IoU 0.75",
        "AP_small": "objects below 32 x 32 pixels",
        "AP_medium": "objects from 32 x 32 to 96 x 96 pixels",
        "AP_large": "objects above 96 x 96 pixels",
        "AR_1": "recall with 1 detection an image",
        "AR_10": "recall with 10 detections an image",
        "AR_100": "recall with 100 detections an image",
        "AR_small": "recall of small objects",
        "AR_medium": "recall of medium objects",
        "AR_large": "recall of large objects",
    }

    def __init__(self, ground_truth: GroundTruth, engine: Literal["hotcoco", "pycocotools"] = "hotcoco") -> None:
        if engine not in ENGINES:
            raise ValueError(f"engine must be one of {', '.join(ENGINES)}; got {engine!r}")
        self.ground_truth = ground_truth
        self._engine = ENGINES[engine](ground_truth)  # converts the ground truth once
        self._gathered: dict[int, np.ndarray] = {}  # image id to (K, 6): original xyxy, score, label
        self._last: _Result | None = None

    def update(self, detections: Sequence[Detections], targets: Targets) -> None:
        """Collect the detections of a batch; an image that was passed before is ignored.

        Args:
            detections: of each image, boxes in pixels of the network input.
            targets: of the same images; only the image id and the way to the original are used.

        Raises:
            ValueError: if a box or a score is not finite, or a label is no class index.
        """
        rows = torch.cat([_rows(image) for image in detections]).cpu()  # one transfer for the whole batch
        columns = (targets.image_ids, targets.original_hw, targets.scale_xy, targets.pad_xy)
        of_images = zip(*(column.tolist() for column in columns), strict=True)
        for image_rows, of_image in zip(rows.split([len(d.scores) for d in detections]), of_images, strict=True):
            image_id, original_hw, scale_xy, pad_xy = of_image
            self._check(image_rows, image_id)
            boxes = boxes_to_original(image_rows[:, :4], original_hw, scale_xy, pad_xy)
            self._gathered.setdefault(image_id, torch.cat((boxes, image_rows[:, 4:]), dim=1).numpy())

    def compute(self) -> dict[str, Tensor]:
        """The twelve numbers of all ranks' detections: float64 scalars, the same on every rank.

        Raises:
            ValueError: if an image is not in the ground truth.
        """
        gathered = _gather_over_ranks(self._gathered)
        unknown = sorted(set(gathered) - set(self.ground_truth.image_ids.tolist()))
        if unknown:
            raise ValueError(f"{len(unknown)} images are not in the ground truth: image ids {unknown[:10]}")
        results = self._coco_results(gathered)
        precision, recall = self._engine.evaluate(results)
        self._last = _Result(results, precision)
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in _summary(precision, recall).items()}

    def per_class(self) -> dict[str, float]:
        """AP of each class; -1 for a class without ground truth.

        The category id is added to names that several classes have.

        Raises:
            RuntimeError: if nothing was computed yet.
        """
        precision = self._last_result().precision[:, :, :, AREAS.index("all"), MAX_DETECTIONS.index(100)]
        column_of = np.argsort(np.argsort(self.ground_truth.category_ids))  # the engines sort by category id
        names = distinct_names(self.ground_truth.class_names, self.ground_truth.category_ids)
        return {name: _mean(precision[:, :, column]) for name, column in zip(names, column_of, strict=True)}

    def detections_json(self) -> list[dict[str, Any]]:
        """COCO results of the last ``compute``, as pycocotools reads them: the file's own ids, xywh.

        Raises:
            RuntimeError: if nothing was computed yet.
        """
        results = self._last_result().rows
        image_ids = np.sort(self.ground_truth.image_ids)[results[:, 0].astype(np.int64)]
        rows = zip(image_ids.tolist(), results[:, 1:5].tolist(), results[:, 5:].tolist(), strict=True)
        return [
            {"image_id": image_id, "category_id": int(category), "bbox": box_xywh, "score": score}
            for image_id, box_xywh, (score, category) in rows
        ]

    def reset(self) -> None:
        """Remove all collected detections."""
        self._gathered = {}

    def _check(self, image_rows: Tensor, image_id: int) -> None:
        if not image_rows.isfinite().all():
            row = image_rows[~image_rows.isfinite().all(dim=1)][0].tolist()
            raise ValueError(f"detections must be finite; image {image_id} has box {row[:4]} with score {row[4]}")
        num_classes = len(self.ground_truth.class_names)
        labels = image_rows[:, 5]
        if ((labels < 0) | (labels >= num_classes)).any():
            raise ValueError(
                f"labels must lie in [0, {num_classes}), one for each class of the ground truth; "
                f"image {image_id} has labels from {int(labels.min())} to {int(labels.max())}"
            )

    def _coco_results(self, gathered: dict[int, np.ndarray]) -> np.ndarray:
        """(N, 7) float64: row among the sorted image ids, xywh, score, category id.

        Images are sorted, because equal scores are ranked by image order. So the order of batches and the number
        of ranks do not change the result. Rows replace image ids, because float64 is not exact for integers above 2^53.
        """
        image_ids = sorted(gathered)
        found = np.concatenate([np.empty((0, 6)), *(gathered[image_id] for image_id in image_ids)]).astype(np.float64)
        image_rows = np.searchsorted(np.sort(self.ground_truth.image_ids), np.array(image_ids, dtype=np.int64))
        results = np.empty((len(found), 7))
        results[:, 0] = np.repeat(image_rows, [len(gathered[image_id]) for image_id in image_ids])
        results[:, 1:3] = found[:, :2]
        results[:, 3:5] = found[:, 2:4] - found[:, :2]
        results[:, 5] = found[:, 4]
        results[:, 6] = self.ground_truth.category_ids[found[:, 5].astype(np.int64)]
        return results

    def _last_result(self) -> "_Result":
        if self._last is None:
            raise RuntimeError("nothing was computed yet; call compute() first")
        return self._last


class _Result(NamedTuple):
    rows: np.ndarray  # (N, 7) detections as given to the engine
    precision: np.ndarray  # (IoU thresholds, recalls, classes by category id, areas, max detections)


def _rows(detections: Detections) -> Tensor:
    """(K, 6) float32: xyxy, score, label. A float32 holds every class index below 2^24."""
    boxes, scores, labels = detections
    return torch.cat((boxes.float(), scores.float()[:, None], labels.float()[:, None]), dim=1)


def _gather_over_ranks(gathered: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Rows of the images of all ranks; those of the first rank if several ranks have the same image."""
    return {image_id: rows for of_rank in reversed(of_all_ranks(gathered)) for image_id, rows in of_rank.items()}


def _images_and_categories(truth: GroundTruth) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    categories = zip(truth.category_ids.tolist(), truth.class_names, strict=True)
    return (
        [{"id": row} for row in range(len(truth.image_ids))],
        [{"id": category_id, "name": name} for category_id, name in categories],
    )


def _sorted_image_rows(truth: GroundTruth) -> np.ndarray:
    """(boxes,) each annotation's image as its row among the sorted image ids."""
    return np.argsort(np.argsort(truth.image_ids))[truth.image_rows]


class _Hotcoco:
    def __init__(self, truth: GroundTruth) -> None:
        self.truth = truth
        images, categories = _images_and_categories(truth)
        self.coco = hotcoco.COCO.from_arrays(
            images,
            categories,
            image_ids=_sorted_image_rows(truth),
            category_ids=truth.category_ids[truth.labels],
            boxes=truth.boxes_xywh,
            ids=np.arange(1, len(truth.labels) + 1),
            area=truth.areas,
            iscrowd=truth.crowd,
        )

    def __reduce__(self) -> tuple[type, tuple[GroundTruth]]:
        """Copies and pickles convert the ground truth again, because hotcoco's object supports neither."""
        return _Hotcoco, (self.truth,)

    def evaluate(self, results: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        evaluation = hotcoco.COCOeval(self.coco, self.coco.load_res(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        assert evaluation.eval is not None, "accumulate() fills eval"
        return evaluation.eval["precision"], evaluation.eval["recall"]


class _Pycocotools:
    def __init__(self, truth: GroundTruth) -> None:
        images, categories = _images_and_categories(truth)
        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
        columns = (
            range(1, len(truth.labels) + 1),
            _sorted_image_rows(truth).tolist(),
            truth.category_ids[truth.labels].tolist(),
            truth.boxes_xywh.tolist(),
            truth.areas.tolist(),
            truth.crowd.astype(int).tolist(),
        )
        annotations = [dict(zip(keys, values, strict=True)) for values in zip(*columns, strict=True)]
        self.coco = self._indexed({"images": images, "categories": categories, "annotations": annotations})

    def evaluate(self, results: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            if len(results):
                found = self.coco.loadRes(results)
            else:  # loadRes would fail
                found = self._indexed({**self.coco.dataset, "annotations": []})
            evaluation = COCOeval(self.coco, found, "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation.eval["precision"], evaluation.eval["recall"]

    @staticmethod
    def _indexed(dataset: dict[str, Any]) -> Any:
        coco: Any = COCO()
        coco.dataset = dataset
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        return coco


ENGINES = {"hotcoco": _Hotcoco, "pycocotools": _Pycocotools}


def _summary(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    """pycocotools' ``summarize`` without its printing: IoU thresholds 0.50, 0.55, .. 0.95 are the first axis."""
    at_100 = MAX_DETECTIONS.index(100)
    summary = {
        "AP": _mean(precision[:, :, :, 0, at_100]),
        "AP50": _mean(precision[0, :, :, 0, at_100]),
        "AP75": _mean(precision[5, :, :, 0, at_100]),
    }
    summary |= {f"AP_{area}": _mean(precision[..., AREAS.index(area), at_100]) for area in AREAS[1:]}
    summary |= {f"AR_{limit}": _mean(recall[:, :, 0, column]) for column, limit in enumerate(MAX_DETECTIONS)}
    summary |= {f"AR_{area}": _mean(recall[..., AREAS.index(area), at_100]) for area in AREAS[1:]}
    return summary


def _mean(values: np.ndarray) -> float:
    measured = values[values > -1]
    return float(measured.mean()) if len(measured) else -1.0
