"""The COCO numbers of a detector as it is run, by the images that an export is checked with."""

from collections.abc import Sequence
from typing import Any

import torch

from detkit.errors import DataError
from detkit.export.options import ExportOptions
from detkit.export.verify.check_images import images_for
from detkit.inference import Predictor, read_stored
from detkit.types import Detections, Target


def measure(
    predictor: Predictor,
    checkpoint: str,
    *,
    data: Sequence[tuple[str, Any]],
    split: Any,
    limit: int | None,
    batch_size: int,
    trusted: list[str],
) -> dict[str, Any]:
    """The twelve numbers, and on how many images; at the predictor's own size.

    Args:
        predictor: its decoder keeps what evaluation needs.
        checkpoint: of the predictor; the data is that of its recipe, and seen through its resize and classes.
        data: (key, value) of the recipe's data, see ``detkit evaluate``.
        split: of the data.
        limit: first images of the split; None: all.
        batch_size: images that go through the network together.
        trusted: packages whose classes the recipe may name.

    Raises:
        DataError: if the data cannot be used.
    """
    stored = read_stored(checkpoint)._replace(image_hw=predictor.image_hw)
    options = ExportOptions(checkpoint, limit=limit, batch_size=batch_size, split=split, trusted=tuple(trusted))
    found: list[Detections] = []
    targets: list[Target] = []
    with images_for(stored, options, [(str(key), value) for key, value in data]) as images:
        if images.measure is None:
            raise DataError("the data is not there any more")
        for batch, of_batch in images.batches():
            with torch.inference_mode():
                found += predictor.decode(predictor.detector(batch.to(predictor.device)))
            targets += of_batch
        return {"numbers": images.measure(found, targets), "images": len(targets)}
