"""The values that travel between packages, and the letters that name their dimensions.

Dimension letters (a suffix such as ``scores_BAC`` lists them in order):
    B images, H W pixels, C classes, L levels, A anchor points over all levels,
    N ground-truth boxes of one image (or the most of any image, where a batch is padded),
    M ignored (crowd) boxes of one image, P positive points, S = 4 box sides, R distance bins,
    D box parameters of a point, K top-k or kept detections, Q queries.

Boxes are xyxy in pixels of the network input, float32, unless a name says otherwise.
They are NamedTuples because Lightning's device transfer and torch's pin_memory know those.
"""

from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

BoxCoding = Literal["distances", "offsets"]


class FeatureSpec(NamedTuple):
    """What one feature map is like: its channels, its stride in input pixels, its layer's name.

    Stride 0 is a map that has no place left: one vector for the whole image.
    """

    channels: int
    stride: int
    name: str = ""

    @property
    def level(self) -> str:
        """P3 for stride 8, P4 for 16; P0 is the size of the image; empty without a place."""
        return f"P{self.stride.bit_length() - 1}" if self.stride else ""


class Target(NamedTuple):
    """Ground truth of one image, and the way back to the original image.

    ``network = original * scale_xy + pad_xy``; samples made of several images (mosaic) keep 1 and 0.
    """

    boxes: Tensor  # (N, 4) xyxy
    labels: Tensor  # (N,) int64 class index in [0, C)
    ignored_boxes: Tensor  # (M, 4) xyxy crowd regions: points in them are no negatives
    image_id: int
    original_hw: tuple[int, int]
    scale_xy: tuple[float, float] = (1.0, 1.0)
    pad_xy: tuple[float, float] = (0.0, 0.0)


class Batch(NamedTuple):
    """What a loader yields: (B, 3, H, W) RGB images and one target for each.

    The loader's images are uint8; after the transfer to the device they are float in [0, 1].
    """

    images: Tensor
    targets: list[Target]


class ImageLabel(NamedTuple):
    """The class of one image, for a classifier."""

    label: Tensor  # () int64 class index in [0, C)
    image_id: int


class ClassBatch(NamedTuple):
    """A ``Batch`` for a classifier: the same images, one label for each."""

    images: Tensor
    targets: list[ImageLabel]


class ClassTruth(NamedTuple):
    """The classes of a validation split for a classifier, and how often each occurs."""

    class_names: tuple[str, ...]
    category_ids: np.ndarray  # (C,) int64, the data set's own id of each class index
    counts: np.ndarray  # (C,) int64 images


class YOLOPredictions(NamedTuple):
    """Raw outputs of a YOLO head for every anchor point; levels in order, rows before columns.

    ``box_coding`` says what ``boxes`` holds (``detkit.ops.box_coding`` turns it into xyxy):
    "distances": D = 4R logits over R distance bins for left, top, right, bottom; with R = 1 the
    logarithm of the distance. "offsets": D = 4, centre offset from the cell's corner and log
    size, in strides (YOLOX).
    """

    logits: Tensor  # (B, A, C) class logits
    boxes: Tensor  # (B, A, D) raw box parameters
    objectness: Tensor | None  # (B, A) logits; None for a head without the branch
    points: Tensor  # (A, 2) centres of the cells (x, y), pixels
    strides: Tensor  # (A,) pixels per cell
    box_coding: BoxCoding


class QueryOutput(NamedTuple):
    """What one layer says of its queries."""

    logits: Tensor  # (B, Q, C) class logits
    boxes_cxcywh_norm: Tensor  # (B, Q, 4) in [0, 1]


class Denoising(NamedTuple):
    """Outputs for queries that were made of the ground truth with noise, and which of them is to find what."""

    layers: list[QueryOutput]  # of each decoder layer, in order; their queries are the noisy ones
    image_rows: Tensor  # (P,) int64 row of the batch of each positive query
    query_rows: Tensor  # (P,) int64 its row among the noisy queries; all others are negatives or padding
    gt_rows: Tensor  # (P,) int64 the row of its ground truth in its image
    groups: int  # copies of the ground truth, each with noise of its own


class DETRPredictions(NamedTuple):
    """Raw outputs of a DETR head: every layer's, because training compares all of them."""

    layers: list[QueryOutput]  # of each decoder layer, in order; the last is the answer
    encoder: QueryOutput  # of the places that became queries, before the decoder
    denoising: Denoising | None  # None without targets, or without an object in the batch
    image_hw: tuple[int, int]  # pixels of the network input, in which boxes are normalised


class DenseDetections(NamedTuple):
    """Every candidate of a batch before any is chosen: a box for each place and a score for each of its classes."""

    boxes: Tensor  # (B, A, 4) xyxy; A queries for a DETR
    scores: Tensor  # (B, A, C) in [0, 1]


class Detections(NamedTuple):
    """Final detections of one image, best first."""

    boxes: Tensor  # (K, 4) xyxy
    scores: Tensor  # (K,) in [0, 1]
    labels: Tensor  # (K,) int64 class index


class RankedClasses(NamedTuple):
    """The likeliest classes of one image, best first."""

    scores: Tensor  # (K,) in [0, 1]
    labels: Tensor  # (K,) int64 class index


class GroundTruth(NamedTuple):
    """Annotations of a split as the file has them (no repair), for evaluation. Numpy arrays."""

    image_ids: np.ndarray  # (images,) int64
    sizes_hw: np.ndarray  # (images, 2) int32
    boxes_xywh: np.ndarray  # (boxes, 4) float64, original pixels
    areas: np.ndarray  # (boxes,) float64
    crowd: np.ndarray  # (boxes,) bool
    labels: np.ndarray  # (boxes,) int64 class index
    image_rows: np.ndarray  # (boxes,) int64 row in image_ids
    category_ids: np.ndarray  # (C,) int64, the file's own id of each class index
    class_names: tuple[str, ...]
