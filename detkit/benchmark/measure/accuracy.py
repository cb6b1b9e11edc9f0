"""The COCO numbers of a detector in its runtime, on the images that an export is checked with."""

from pathlib import Path
from typing import NamedTuple

import torch

from detkit.errors import DataError
from detkit.exporting.options import ExportOptions, SplitName
from detkit.exporting.verify.check_images import DataOverrides, images_for
from detkit.inference import Predictor, read_stored
from detkit.types import Detections, Target


class Accuracy(NamedTuple):
    """The twelve COCO numbers, and the number of images that they are measured on."""

    numbers: dict[str, float]
    num_images: int


def measure_accuracy(
    predictor: Predictor,
    checkpoint: Path,
    *,
    data_overrides: DataOverrides,
    split: SplitName,
    limit: int | None,
    batch_size: int,
    trusted: list[str],
) -> Accuracy:
    """Measure AP at the predictor's image size.

    Args:
        predictor: with a decoder that keeps what evaluation needs.
        checkpoint: of the predictor; its recipe names the data, its resize and classes are used.
        data_overrides: of the recipe's data.
        split: of the data.
        limit: number of images, the first ones of the split; None means all.
        batch_size: of the network.
        trusted: packages whose classes the recipe may name.

    Raises:
        DataError: if the data cannot be used.
    """
    stored = read_stored(checkpoint)._replace(image_hw=predictor.image_hw)
    options = ExportOptions(str(checkpoint), limit=limit, batch_size=batch_size, split=split, trusted=tuple(trusted))
    found: list[Detections] = []
    targets: list[Target] = []
    with images_for(stored, options, data_overrides) as images:
        if images.measure is None:
            raise DataError("the data does not exist any more")
        for batch, of_batch in images.batches():
            with torch.inference_mode():
                found += predictor.decode(predictor.detector(batch.to(predictor.device)))
            targets += of_batch
        return Accuracy(images.measure(found, targets), len(targets))
