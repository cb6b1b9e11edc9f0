"""The images on which an export is compared with its detector."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from detkit import recipe
from detkit.data import SampleKey, to_input
from detkit.data.demo.scene import draw_scene
from detkit.data.images.resize import to_unit
from detkit.errors import ExportError
from detkit.exporting.options import ExportOptions
from detkit.inference.stored_detector import StoredDetector, on_split
from detkit.ops.targets import pack_targets
from detkit.types import Detections, GroundTruth, Target

NUM_GENERATED = 16
DataOverrides = Sequence[tuple[str, Any]]  # (key, value) of a recipe's data; values are what YAML can hold


class CheckImages(NamedTuple):
    """Batches of images and their ground truth.

    Args:
        name: description for messages.
        batches: iterates over (B, 3, H, W) images in [0, 1] and their targets; drawn images have none.
        num_batches: of ``batches``.
        fingerprint: of the data; None for drawn images.
        measure: the twelve COCO numbers of detections; None without ground truth.
    """

    name: str
    batches: Callable[[], Iterator[tuple[Tensor, list[Target]]]]
    num_batches: int
    fingerprint: str | None
    measure: Callable[[list[Detections], list[Target]], dict[str, float]] | None


@contextlib.contextmanager
def images_for(stored: StoredDetector, options: ExportOptions, data_overrides: DataOverrides) -> Iterator[CheckImages]:
    """The split of the recipe's data, with overrides; drawn images if that data does not exist.

    Args:
        stored: with the image size of the export.
        options: of the export.
        data_overrides: of the recipe's data.

    Raises:
        DataError: if the data cannot be used.
        RecipeError: if a key does not fit.
    """
    if not has_data(stored, options, data_overrides):
        yield _generated(stored, options)
        return
    with _built(stored, options, data_overrides, options.split) as parts:
        yield _of_split(stored, options, parts)


def has_data(stored: StoredDetector, options: ExportOptions, data_overrides: DataOverrides) -> bool:
    """Whether data was asked for by a key or a split, or still lies where the recipe has it.

    Data that was asked for and does not exist, and misspelt keys, are reported when the data is built.
    """
    if data_overrides or options.split != "val":
        return True
    data = stored.recipe.get("data", {})
    if "_target_" not in data:
        return False
    named = data.get("root") or data.get(f"{options.split}_annotations")
    return named is None or Path(named).expanduser().exists()  # None means the demo set


def calibration_images(
    stored: StoredDetector, options: ExportOptions, data_overrides: DataOverrides
) -> list[np.ndarray]:
    """(H, W, 3) uint8 RGB images, evenly spaced over the training split, resized as for validation.

    Raises:
        ExportError: if there is no data.
        DataError: if there is no training split.
    """
    if not has_data(stored, options, data_overrides):
        raise ExportError(
            "precision=int8 needs training images to measure the ranges of activations on; the data of the recipe "
            f"({stored.recipe.get('data', {}).get('root')}) does not exist: give data.root=FOLDER"
        )
    with _built(stored, options, data_overrides, "train") as parts:
        dataset, number = parts.data.val_dataloader().dataset, len(parts.data.index("val"))
        rows = np.linspace(0, number - 1, min(options.calibration, number)).round().astype(int)
        return [dataset[SampleKey(0, row, stored.image_hw)][0] for row in rows.tolist()]


def generated_images(number: int, image_hw: tuple[int, int]) -> Tensor:
    """(B, 3, H, W) images in [0, 1]: fixed drawings of metal parts without a border of one colour.

    In such a border all places would score the same, and rounding would decide which of them suppresses the others.
    """
    rng = np.random.default_rng(0)
    drawn = [to_input(draw_scene(rng).image, image_hw, "squash")[0] for _ in range(number)]
    return to_unit(torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2))


def _generated(stored: StoredDetector, options: ExportOptions) -> CheckImages:
    number = min(options.limit or NUM_GENERATED, NUM_GENERATED)
    batches = generated_images(number, stored.image_hw).split(options.batch_size)
    return CheckImages(f"{number} drawn images", lambda: ((batch, []) for batch in batches), len(batches), None, None)


@contextlib.contextmanager
def _built(
    stored: StoredDetector, options: ExportOptions, data_overrides: DataOverrides, split: str
) -> Iterator[recipe.BuiltParts]:
    """Build the parts of the recipe but the model; at the end the worker processes of its data are stopped."""
    overrides = list(data_overrides)
    if stored.recipe.get("data", {}).get("_target_") == "detkit.data.CocoDataModule":
        overrides += [("data.image_hw", list(stored.image_hw)), ("data.val_batch_size", options.batch_size)]
    parts = recipe.build(on_split(stored.plan(overrides, options.trusted), split), model=None)
    try:
        yield parts
    finally:
        parts.data.teardown("validate")


def _of_split(stored: StoredDetector, options: ExportOptions, parts: recipe.BuiltParts) -> CheckImages:
    from detkit.training.evaluate import DecodeForClasses  # imports Lightning

    data = parts.data
    in_classes_of_data = DecodeForClasses(lambda found: found, stored.class_names, data.class_names)
    loader = data.val_dataloader()

    def batches() -> Iterator[tuple[Tensor, list[Target]]]:
        left = options.limit or math.inf
        for batch in loader:
            size = int(min(len(batch.images), left))
            left -= size
            yield to_unit(batch.images[:size]).contiguous(), batch.targets.unpack()[:size]
            if left <= 0:
                return

    def measure(found: list[Detections], targets: list[Target]) -> dict[str, float]:
        truth = of_images(data.ground_truth(), [target.image_id for target in targets])
        metric = parts.metrics(ground_truth=truth)
        metric.update(in_classes_of_data(found), pack_targets(targets))
        return {name: float(value) for name, value in metric.compute().items()}

    num_images = min(len(data.index("val")), options.limit or math.inf)
    num_batches = min(len(loader), math.ceil(num_images / max(1, len(data.index("val")) // len(loader))))
    root = dict(parts.plan.config["data"]).get("root") or parts.plan.config["data"].get("val_annotations")
    name = f"{num_images} images of the {options.split} split, {root}"
    return CheckImages(name, batches, num_batches, data.fingerprint, measure)


def of_images(truth: GroundTruth, image_ids: Sequence[int]) -> GroundTruth:
    """The annotations of these images; the other images would count as images without detections."""
    kept = np.isin(truth.image_ids, image_ids)
    boxes = kept[truth.image_rows]
    return truth._replace(
        image_ids=truth.image_ids[kept],
        sizes_hw=truth.sizes_hw[kept],
        boxes_xywh=truth.boxes_xywh[boxes],
        areas=truth.areas[boxes],
        crowd=truth.crowd[boxes],
        labels=truth.labels[boxes],
        image_rows=(np.cumsum(kept) - 1)[truth.image_rows[boxes]],
    )


def batched(images: Sequence[np.ndarray], size: int) -> Iterator[Tensor]:
    """(B, 3, H, W) uint8 batches of (H, W, 3) images."""
    for start in range(0, len(images), size):
        yield torch.from_numpy(np.stack(images[start : start + size])).permute(0, 3, 1, 2)
