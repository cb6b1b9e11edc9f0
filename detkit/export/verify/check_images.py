"""The images on which an export is held against its detector."""

import contextlib
import itertools
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
from detkit.export.options import Options
from detkit.inference.stored_detector import StoredDetector
from detkit.types import Detections, GroundTruth, Target

NUM_GENERATED = 16
Pairs = Sequence[tuple[str, Any]]
Found = list[Detections]


class CheckImages(NamedTuple):
    """Batches of images, and what they are."""

    name: str
    batches: Callable[[], Iterator[tuple[Tensor, list[Target]]]]  # (B, 3, H, W) in [0, 1]; generated: no targets
    num_batches: int
    fingerprint: str | None  # of the data
    measure: Callable[[Found, list[Target]], dict[str, float]] | None  # the twelve numbers; None: no ground truth


@contextlib.contextmanager
def images_for(stored: StoredDetector, options: Options, pairs: Pairs) -> Iterator[CheckImages]:
    """The split, of the data of the recipe where that is still there, or of other data; else drawn images.

    Args:
        stored: with image_hw of the export.
        options: of the export.
        pairs: (key, value) of the recipe's data.

    Raises:
        DataError: if the data cannot be used.
        RecipeError: if a key does not fit.
    """
    if not has_data(stored, options, pairs):
        yield _generated(stored, options)
        return
    with _built(stored, options, pairs, options.split) as parts:
        yield _of_split(stored, options, parts)


def has_data(stored: StoredDetector, options: Options, pairs: Pairs) -> bool:
    """Whether there is data: asked for by a key or a split, or where the recipe had it.

    Who asks for data that is not there, or mistypes a key, is told so when it is built.
    """
    if pairs or options.split != "val":
        return True
    data = stored.recipe.get("data", {})
    if "_target_" not in data:
        return False
    named = data.get("root") or data.get(f"{options.split}_annotations")
    return named is None or Path(named).expanduser().exists()  # None: the demo set


def calibration_images(stored: StoredDetector, options: Options, pairs: Pairs) -> list[np.ndarray]:
    """(H, W, 3) uint8 RGB images at equal distances over the training split, as validation would see them.

    Raises:
        ExportError: if there is no data.
        DataError: if there is no training split.
    """
    if not has_data(stored, options, pairs):
        raise ExportError(
            "precision=int8 needs training images to learn the ranges of activations from; the data of the recipe "
            f"({stored.recipe.get('data', {}).get('root')}) is not there: data.root=FOLDER"
        )
    with _built(stored, options, pairs, "train") as parts:
        dataset, number = parts.data.val_dataloader().dataset, len(parts.data.index("val"))
        rows = np.linspace(0, number - 1, min(options.calibration, number)).round().astype(int)
        return [dataset[SampleKey(0, row, stored.image_hw)][0] for row in rows.tolist()]


def generated_images(number: int, image_hw: tuple[int, int]) -> Tensor:
    """(B, 3, H, W) in [0, 1]: drawings of metal parts, the same ones always, without a border of one colour.

    In such a border all places score the same, and rounding alone would decide which of them suppresses the others.
    """
    rng = np.random.default_rng(0)
    drawn = [to_input(draw_scene(rng).image, image_hw, "squash")[0] for _ in range(number)]
    return to_unit(torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2))


def _generated(stored: StoredDetector, options: Options) -> CheckImages:
    number = min(options.limit or NUM_GENERATED, NUM_GENERATED)
    batches = generated_images(number, stored.image_hw).split(options.batch_size)
    return CheckImages(f"{number} drawn images", lambda: ((batch, []) for batch in batches), len(batches), None, None)


@contextlib.contextmanager
def _built(stored: StoredDetector, options: Options, pairs: Pairs, split: str) -> Iterator[recipe.Parts]:
    """The parts of the recipe; the workers of its data end with it."""
    given = list(pairs)
    if stored.recipe.get("data", {}).get("_target_") == "detkit.data.CocoDataModule":
        given += [("data.image_hw", list(stored.image_hw)), ("data.val_batch_size", options.batch_size)]
    parts = recipe.build(stored.plan(given, split, options.packages))
    try:
        yield parts
    finally:
        parts.data.teardown("validate")


def _of_split(stored: StoredDetector, options: Options, parts: recipe.Parts) -> CheckImages:
    from detkit.training.evaluate import DecodeForClasses  # lightning

    data = parts.data
    in_classes_of_data = DecodeForClasses(lambda found: found, stored.class_names, data.class_names)
    loader = data.val_dataloader()

    def batches() -> Iterator[tuple[Tensor, list[Target]]]:
        left = options.limit or math.inf
        for batch in loader:
            size = int(min(len(batch.targets), left))
            left -= size
            yield to_unit(batch.images[:size]).contiguous(), batch.targets[:size]
            if left <= 0:
                return

    def measure(found: Found, targets: list[Target]) -> dict[str, float]:
        truth = of_images(data.ground_truth(), [target.image_id for target in targets])
        metric = parts.metrics(ground_truth=truth)
        metric.update(in_classes_of_data(found), targets)
        return {name: float(value) for name, value in metric.compute().items()}

    num_images = min(len(data.index("val")), options.limit or math.inf)
    num_batches = min(len(loader), math.ceil(num_images / max(1, len(data.index("val")) // len(loader))))
    root = dict(parts.plan.config["data"]).get("root") or parts.plan.config["data"].get("val_annotations")
    name = f"{num_images} images of the {options.split} split, {root}"
    return CheckImages(name, batches, num_batches, data.fingerprint, measure)


def of_images(truth: GroundTruth, image_ids: Sequence[int]) -> GroundTruth:
    """The annotations of these images alone: the others would count as images without detections."""
    kept = np.isin(truth.image_ids, image_ids)
    boxes = kept[truth.image_rows]
    columns = {name: getattr(truth, name)[boxes] for name in ("boxes_xywh", "areas", "crowd", "labels")}
    rows = (np.cumsum(kept) - 1)[truth.image_rows[boxes]]
    of_image = {"image_ids": truth.image_ids[kept], "sizes_hw": truth.sizes_hw[kept], "image_rows": rows}
    return truth._replace(**columns, **of_image)


def batched(images: Sequence[np.ndarray], size: int) -> Iterator[Tensor]:
    """(B, 3, H, W) uint8."""
    iterator = iter(images)
    while batch := list(itertools.islice(iterator, size)):
        yield torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)
