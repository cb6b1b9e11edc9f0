"""The options of ``detkit predict``."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from detkit.errors import CheckpointError, DataError
from detkit.inference.tiling.windows import LEAST_SLICE, MOST_OVERLAP
from detkit.recipe.options import Between

Saved = Literal["pictures", "coco", "csv", "yolo"]


@dataclass(frozen=True)
class PredictOptions:
    """Which detector is applied to which images, and which results are written.

    Args:
        checkpoint: a run's folder, a detector file or an exported detector.
        source: an image, a folder, a pattern, a .txt file with a path in every line, a video or the number of a camera.
        out: folder of the results; without it a new one, runs/predict/TIME.
        save: results to write; a video gives an annotated video.
        score_threshold: lowest score of a detection.
        max_detections: most detections of an image.
        batch_size: images that go through the network together.
        slices: side of additional windows in pixels, for small objects in large images.
        overlap: share of a window that the next window covers too.
        flip: also detect in the mirrored image.
        device: auto, cpu, cuda or cuda:NUMBER.
        unreadable: skip counts unreadable files, stop ends at the first.
        annotations: a COCO file that gives its ids of images and categories to the COCO JSON.
        trusted: packages whose classes the checkpoint may name.
    """

    checkpoint: str = field(metadata={"example": "runs/NAME/TIME", "exists": CheckpointError})
    source: str = field(metadata={"example": "photos", "exists": DataError})
    out: str = ""
    save: tuple[Saved, ...] = ("pictures", "coco")
    score_threshold: Annotated[float, Between(0, 1)] = 0.25
    max_detections: Annotated[int, Between(1)] = 100
    batch_size: Annotated[int, Between(1)] = 8
    slices: Annotated[int, Between(LEAST_SLICE)] | None = None
    overlap: Annotated[float, Between(0, MOST_OVERLAP)] = 0.2
    flip: bool = False
    device: str = "auto"
    unreadable: Literal["skip", "stop"] = "skip"
    annotations: str = field(default="", metadata={"exists": DataError})
    trusted: tuple[str, ...] = ()
