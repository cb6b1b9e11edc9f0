"""AP and seconds with slices and with the mirrored image, in pixels of the original images.

    python -m results.slices checkpoint=runs/NAME/TIME root=data/aerial_cars [slices=320,480,640] [overlap=0.2]
        [split=val] [limit=10]

Each row predicts the same images of the split, one image at a time. Its time is the median of an image, with the
decoding of the file. limit takes only the first images.
"""

import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from rich.console import Console
from rich.table import Table

import detkit
from detkit.data.checking.splits_of_run import find_splits, load_indices
from detkit.errors import DataError, run_script
from detkit.inference import ImageDetections, Predictor
from detkit.metrics import CocoMetric
from detkit.ops.targets import pack_targets
from detkit.recipe.options import Between, read_options
from detkit.types import Detections, GroundTruth, Target

NUMBERS = ("AP", "AP50", "AP_small", "AP_medium", "AP_large", "AR_100")


@dataclass(frozen=True)
class Options:
    """Detector, data and slices."""

    checkpoint: str = field(metadata={"example": "runs/NAME/TIME"})
    root: str = field(metadata={"example": "data/aerial_cars"})
    slices: tuple[Annotated[int, Between(32)], ...] = (320, 480, 640)
    overlap: Annotated[float, Between(0, 0.9)] = 0.2
    split: Literal["train", "val", "test"] = "val"
    limit: Annotated[int, Between(1)] | None = None


def ways(options: Options) -> dict[str, dict[str, Any]]:
    """The arguments of ``predict`` for each row."""
    overlap = options.overlap
    sliced = {f"slices={side}": {"slices": side, "overlap": overlap} for side in options.slices}
    flipped = {f"{name} flip": {**arguments, "flip": True} for name, arguments in sliced.items()}
    return {"whole": {}, "whole flip": {"flip": True}, **sliced, **flipped}


def measure(
    predictor: Predictor, files: dict[int, Path], truth: GroundTruth, arguments: dict[str, Any]
) -> tuple[dict[str, float], float]:
    """The COCO numbers, and the median seconds of an image."""
    metric, times = CocoMetric(truth), []
    for image_id, file in files.items():
        start = time.perf_counter()
        found = predictor.predict(file, score_threshold=predictor.decode.score_threshold, **arguments)  # type: ignore[attr-defined]
        times.append(time.perf_counter() - start)
        metric.update([_in_order_of(truth.class_names, found)], pack_targets([_target(image_id, found.image_hw)]))
    return {name: float(value) for name, value in metric.compute().items()}, statistics.median(times)


def _in_order_of(class_names: tuple[str, ...], found: ImageDetections) -> Detections:
    known = found.filter(classes=[name for name in found.class_names if name in class_names])
    labels = torch.tensor([class_names.index(name) for name in known.names], dtype=torch.int64)
    return Detections(torch.from_numpy(known.boxes), torch.from_numpy(known.scores), labels)


def _target(image_id: int, image_hw: tuple[int, int]) -> Target:
    return Target(torch.empty(0, 4), torch.empty(0, dtype=torch.int64), torch.empty(0, 4), image_id, image_hw)


def first_images(truth: GroundTruth, number: int) -> GroundTruth:
    """The ground truth of the first images."""
    here = truth.image_rows < number
    boxes = {name: getattr(truth, name)[here] for name in ("boxes_xywh", "areas", "crowd", "labels", "image_rows")}
    return truth._replace(image_ids=truth.image_ids[:number], sizes_hw=truth.sizes_hw[:number], **boxes)


def main(argv: list[str]) -> None:
    """Measure each row, and print it when it is done."""
    if not argv or {"-h", "--help"} & set(argv):
        print(__doc__)
        return
    options, _ = read_options(Options, argv)
    splits = find_splits(options.root, {options.split: (None, None)}, [options.split])
    index = load_indices(splits, options.root)[options.split]
    truth = first_images(index.ground_truth(), options.limit or len(index))
    files = {int(image_id): index.path(row) for row, image_id in enumerate(truth.image_ids)}
    predictor = detkit.load(options.checkpoint)
    if unknown := set(index.class_names) - set(predictor.class_names):
        raise DataError(f"the detector does not know {', '.join(sorted(unknown))}")
    table = Table("", *NUMBERS, "s / image", box=None)
    for name, arguments in ways(options).items():
        numbers, seconds = measure(predictor, files, truth, arguments)
        table.add_row(name, *(f"{numbers[number]:.4f}" for number in NUMBERS), f"{seconds:.3f}")
        print(f"{name}: AP {numbers['AP']:.4f}", file=sys.stderr, flush=True)
    print(f"{len(files)} images; {torch.get_num_threads()} threads; overlap {options.overlap}")
    Console(width=120).print(table)


if __name__ == "__main__":
    run_script(main)
