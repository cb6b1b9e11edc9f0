"""The values that travel between packages, and the letters that name their dimensions.

Dimension letters (a suffix such as ``scores_BAC`` lists them in order):
    B images, H W pixels, C classes, L levels, A anchor points over all levels,
    N ground-truth boxes of one image (or the most of any image, where a batch is padded),
    G ground-truth boxes of all images of a batch, M crowd boxes, P positive points, S = 4 box sides, R distance bins,
    D box parameters of a point, K top-k or kept detections, Q queries.

Boxes are xyxy in pixels of the network input, float32, unless a name says otherwise.
They are NamedTuples because Lightning's device transfer and torch's pin_memory know those.
"""

from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

BoxCoding = Literal["distances", "offsets"]


class FeatureSpec(NamedTuple):
    """Properties of a feature map: its channels, its stride in input pixels, the name of its layer.

    Stride 0 is a map without positions: one vector for the whole image.
    """

    channels: int
    stride: int
    name: str = ""

    @property
    def level(self) -> str:
        """P3 for stride 8, P4 for 16; P0 has the size of the image; empty for stride 0."""
        return f"P{self.stride.bit_length() - 1}" if self.stride else ""


class Target(NamedTuple):
    """Ground truth of one image, and the way back to the original image.

    ``network = original * scale_xy + pad_xy``; samples made of several images (mosaic) keep 1 and 0.
    """

    boxes: Tensor  # (N, 4) xyxy
    labels: Tensor  # (N,) int64 class index in [0, C)
    crowd_boxes: Tensor  # (M, 4) xyxy crowd regions: points in them are no negatives
    image_id: int
    original_hw: tuple[int, int]
    scale_xy: tuple[float, float] = (1.0, 1.0)
    pad_xy: tuple[float, float] = (0.0, 0.0)


class Targets(NamedTuple):
    """Ground truth of a batch: the boxes of all its images, image after image, and one row per image.

    Only the tensors move to a device. The arrays stay on the host, so that numbers of boxes and
    image ids are never read back from a device. ``detkit.ops.targets`` makes it from one ``Target`` per image.
    """

    boxes: Tensor  # (G, 4) xyxy
    labels: Tensor  # (G,) int64 class index in [0, C)
    image_rows: Tensor  # (G,) int64 row of the batch, ascending
    crowd_boxes: Tensor  # (M, 4) xyxy crowd regions: points in them are no negatives
    crowd_rows: Tensor  # (M,) int64 row of the batch, ascending
    box_counts: np.ndarray  # (B,) int64 boxes of each image
    crowd_counts: np.ndarray  # (B,) int64 crowd boxes of each image
    image_ids: np.ndarray  # (B,) int64
    original_hw: np.ndarray  # (B, 2) int64
    scale_xy: np.ndarray  # (B, 2) float64, as in ``Target``
    pad_xy: np.ndarray  # (B, 2) float64

    @property
    def num_images(self) -> int:
        """B. The ``len`` of a named tuple is the number of its fields."""
        return len(self.image_ids)

    def of_image(self, row: int) -> Target:
        """The ground truth of one image of the batch; the tensors are views."""
        box, crowd = int(self.box_counts[:row].sum()), int(self.crowd_counts[:row].sum())
        boxes = slice(box, box + int(self.box_counts[row]))
        height, width = self.original_hw[row].tolist()
        (scale_x, scale_y), (pad_x, pad_y) = self.scale_xy[row].tolist(), self.pad_xy[row].tolist()
        return Target(
            self.boxes[boxes],
            self.labels[boxes],
            self.crowd_boxes[crowd : crowd + int(self.crowd_counts[row])],
            int(self.image_ids[row]),
            (height, width),
            (scale_x, scale_y),
            (pad_x, pad_y),
        )

    def unpack(self) -> list[Target]:
        """The ground truth of each image."""
        return [self.of_image(row) for row in range(self.num_images)]


class Batch(NamedTuple):
    """A batch of a loader: (B, 3, H, W) RGB images and their ground truth.

    The loader's images are uint8; after the transfer to the device they are float in [0, 1].
    """

    images: Tensor
    targets: Targets


class ImageLabel(NamedTuple):
    """The class of one image, for a classifier."""

    label: Tensor  # () int64 class index in [0, C)
    image_id: int


class ImageLabels(NamedTuple):
    """The classes of a batch of images, for a classifier."""

    labels: Tensor  # (B,) int64 class index in [0, C)
    image_ids: np.ndarray  # (B,) int64; stays on the host

    @property
    def num_images(self) -> int:
        """B. The ``len`` of a named tuple is the number of its fields."""
        return len(self.image_ids)

    def of_image(self, row: int) -> ImageLabel:
        """The class of one image of the batch; the tensor is a view."""
        return ImageLabel(self.labels[row], int(self.image_ids[row]))

    def unpack(self) -> list[ImageLabel]:
        """The class of each image."""
        return [self.of_image(row) for row in range(self.num_images)]


class ClassBatch(NamedTuple):
    """A ``Batch`` for a classifier: the same images, one label for each."""

    images: Tensor
    targets: ImageLabels


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
    """Outputs of one layer for its queries."""

    logits: Tensor  # (B, Q, C) class logits
    boxes_cxcywh_norm: Tensor  # (B, Q, 4) in [0, 1]


class Denoising(NamedTuple):
    """Outputs for queries that were made from the ground truth with noise, and the object of each query."""

    layers: list[QueryOutput]  # of each decoder layer, in order; their queries are the noisy ones
    image_rows: Tensor  # (P,) int64 row of the batch of each positive query
    query_rows: Tensor  # (P,) int64 its row among the noisy queries; all others are negatives or padding
    gt_rows: Tensor  # (P,) int64 the row of its ground truth among those of the batch
    groups: int  # copies of the ground truth, each with noise of its own


class DETRPredictions(NamedTuple):
    """Raw outputs of a DETR head: every layer's, because training compares all of them."""

    layers: list[QueryOutput]  # of each decoder layer, in order; the last is the answer
    encoder: QueryOutput  # of the positions that became queries, before the decoder
    denoising: Denoising | None  # None without targets, or without an object in the batch
    image_hw: tuple[int, int]  # pixels of the network input, in which boxes are normalised


class DenseDetections(NamedTuple):
    """All candidates of a batch before selection: a box for each position and a score for each of its classes."""

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
