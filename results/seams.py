"""AP that the seams between slices cost: AP on joined images, compared with AP on each image alone.

    python -m results.seams checkpoint=runs/NAME/TIME root=data/bccd slices=640 [overlap=0.2] [tiles=3] [split=val]

In slices as large as one image, objects are as large for the network as in the image alone, so every loss comes from
the seams. The row "suppression" joins the boxes of the same slices by NMS with IoU 0.5.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import detkit
from detkit.data import CocoIndex, decode_image
from detkit.data.checking.splits_of_run import find_splits, load_indices
from detkit.errors import run_script
from detkit.inference import Predictor
from detkit.inference.tiling.slicing import detect_slices
from detkit.inference.tiling.windows import grid
from detkit.metrics import CocoMetric
from detkit.ops.nms import batched_nms
from detkit.ops.targets import pack_targets
from detkit.recipe.options import Between, read_options
from detkit.types import Detections, Target

NUMBERS = ("AP", "AP50", "AP75", "AR_100")
Look = Callable[[np.ndarray], Detections]


@dataclass(frozen=True)
class Options:
    """Detector, data and slices."""

    checkpoint: str = field(metadata={"example": "runs/NAME/TIME"})
    root: str = field(metadata={"example": "data/bccd"})
    slices: Annotated[int, Between(32)] = field(metadata={"example": "640"})
    overlap: Annotated[float, Between(0, 0.9)] = 0.2
    tiles: Annotated[int, Between(1)] = 3  # images in a row and in a column
    split: Literal["train", "val", "test"] = "val"


class Tiled(NamedTuple):
    """A large image, and the place of each image in it."""

    canvas: np.ndarray
    targets: list[Target]  # scale_xy is 1, and pad_xy is the place of the image


def tiled(index: CocoIndex, side: int) -> Iterator[Tiled]:
    """All images of a split, joined in squares of side x side images."""
    height, width = index.sizes_hw.max(axis=0).tolist()
    for start in range(0, len(index), side * side):
        canvas, targets = np.full((height * side, width * side, 3), 114, np.uint8), []
        for place, row in enumerate(range(start, min(start + side * side, len(index)))):
            image, x, y = decode_image(index.path(row)), place % side * width, place // side * height
            canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
            targets.append(target(int(index.image_ids[row]), image.shape[:2], (x, y)))
        yield Tiled(canvas, targets)


def target(image_id: int, image_hw: tuple[int, ...], start_xy: tuple[float, float]) -> Target:
    """The place of an image in the large one, without ground truth."""
    nothing, no_labels = torch.empty(0, 4), torch.empty(0, dtype=torch.int64)
    return Target(nothing, no_labels, nothing, image_id, (image_hw[0], image_hw[1]), pad_xy=start_xy)


def each_alone(detect: Look, images: Tiled) -> list[Detections]:
    """Detections of each image alone, in the pixels of the large image."""
    found = []
    for one in images.targets:
        (x, y), (height, width) = map(int, one.pad_xy), one.original_hw
        alone = detect(images.canvas[y : y + height, x : x + width])
        found.append(alone._replace(boxes=alone.boxes + torch.tensor(one.pad_xy * 2)))
    return found


def all_at_once(detect: Look, images: Tiled) -> list[Detections]:
    """Detections of the large image; each belongs to the image in which its centre lies."""
    boxes, scores, labels = detect(images.canvas)
    centres, found = (boxes[:, :2] + boxes[:, 2:]) / 2, []
    for one in images.targets:
        start = torch.tensor(one.pad_xy)
        end = start + torch.tensor(one.original_hw).flip(0)
        here = ((centres >= start) & (centres < end)).all(dim=1)
        found.append(Detections(boxes[here], scores[here], labels[here]))
    return found


def suppressed(predictor: Predictor, image: np.ndarray, options: Options) -> Detections:
    """NMS over the boxes of all slices and of the whole image."""
    windows = [*grid(image.shape[:2], options.slices, options.overlap), (0, 0, image.shape[1], image.shape[0])]
    parts = [predictor.detect([image[y1:y2, x1:x2]])[0] for x1, y1, x2, y2 in windows]
    boxes = torch.cat([part.boxes + torch.tensor(window[:2] * 2) for part, window in zip(parts, windows, strict=True)])
    scores, labels = torch.cat([part.scores for part in parts]), torch.cat([part.labels for part in parts])
    kept = batched_nms(boxes, scores, labels, 0.5)
    return Detections(boxes[kept], scores[kept], labels[kept])


def main(argv: list[str]) -> None:
    """Measure each image alone, and the large images whole, in slices, and in slices that are joined by NMS."""
    if not argv or {"-h", "--help"} & set(argv):
        print(__doc__)
        return
    options, _ = read_options(Options, argv)
    splits = find_splits(options.root, {options.split: (None, None)}, [options.split])
    index = load_indices(splits, options.root)[options.split]
    predictor = detkit.load(options.checkpoint)
    whole: Look = lambda image: predictor.detect([image])[0]  # noqa: E731
    sliced: Look = lambda image: detect_slices(predictor.detect, image, options.slices, options.overlap, 8)  # noqa: E731
    ways = {
        "each image alone": (each_alone, whole),
        "large images, whole": (all_at_once, whole),
        "large images, slices": (all_at_once, sliced),
        "large images, suppression": (all_at_once, lambda image: suppressed(predictor, image, options)),
    }
    table = Table("", *NUMBERS, box=None)
    for name, (way, look) in ways.items():
        metric = CocoMetric(index.ground_truth())
        for images in tiled(index, options.tiles):
            metric.update(way(look, images), pack_targets(images.targets))
        numbers = metric.compute()
        table.add_row(name, *(f"{numbers[number]:.4f}" for number in NUMBERS))
        print(f"{name}: AP {numbers['AP']:.4f}", file=sys.stderr, flush=True)
    Console(width=120).print(table)


if __name__ == "__main__":
    run_script(main)
