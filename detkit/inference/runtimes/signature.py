"""The metadata of an exported file, and its signature: inputs and outputs. Read without torch."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from detkit.errors import CheckpointError
from detkit.inference import runtimes
from detkit.inference.metadata import Notes
from detkit.inference.runtimes.forms import Dynamic, Outputs

if TYPE_CHECKING:
    from detkit.types import BoxCoding


class Signature(NamedTuple):
    """Inputs and outputs of an exported program.

    Outputs by name. raw: "logits", "boxes" and, of a YOLO, "objectness" where it has one, "points", "strides", see
    ``YOLOPredictions`` and ``QueryOutput``. decoded: "boxes" and "scores", see ``DenseDetections``. detections:
    "boxes" (B, K, 4), "scores" (B, K), "labels" (B, K) int64, best first, and "counts" (B,) int64: how many of the K
    are detections; what follows is padding. Boxes of the last two are xyxy in pixels of the network input.
    """

    outputs: Outputs
    output_names: tuple[str, ...]
    takes_uint8: bool  # (B, H, W, 3) uint8 RGB instead of (B, 3, H, W) float32 RGB in [0, 1]
    dynamic: Dynamic  # none: one image of image_hw; batch: any number; size: any number and any size
    image_hw: tuple[int, int]
    largest_stride: int
    box_coding: "BoxCoding"  # of raw outputs of a YOLO


def read_notes(path: Path) -> Notes:
    """The metadata of an exported file: recipe, class names, size, signature, certificate; not checked yet.

    Raises:
        CheckpointError: if the file was not exported by detkit, is damaged, or its library is not installed.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    texts = runtimes.read_metadata(path)
    if "detkit_version" not in texts:
        raise CheckpointError(f"{path}: was not exported by detkit: it has no class names and no recipe")
    try:
        return {key: json.loads(text) for key, text in texts.items()}
    except ValueError as error:
        raise CheckpointError(f"{path}: its metadata is damaged: {error}") from error


def signature_of(path: Path, notes: Notes) -> Signature:
    """The signature in the metadata; the path is for the error.

    Raises:
        CheckpointError: if the metadata has no valid signature.
    """
    try:
        signature = Signature(**notes["signature"])
        (height, width), stride = signature.image_hw, max(1, int(signature.largest_stride))
        names = tuple(signature.output_names)
        return signature._replace(image_hw=(int(height), int(width)), largest_stride=stride, output_names=names)
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: has no valid signature of inputs and outputs; export it again with this version of detkit"
        ) from error
