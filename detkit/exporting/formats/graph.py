"""The module that is exported: images in, plain tensors out."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from detkit.errors import ExportError
from detkit.inference.runtimes.forms import Dynamic, Outputs
from detkit.types import DenseDetections, Detections, DETRPredictions, YOLOPredictions

MAX_SIDE_CELLS = 512  # of dynamic sizes, in largest strides
MAX_BATCH = 4096

Decode = Callable[..., list[Detections]]  # raw predictions to the detections of each image


@runtime_checkable
class DenseDecode(Protocol):
    """A decoder that can give all boxes and scores before it selects any."""

    def dense(self, predictions: YOLOPredictions | DETRPredictions) -> DenseDetections:
        """Boxes and scores of all places."""
        ...


@runtime_checkable
class BestDecode(DenseDecode, Protocol):
    """A decoder without suppression, such as ``DETRDecode``: its selection is part of the exported program."""

    score_threshold: float

    def best(self, dense: DenseDetections) -> tuple[Tensor, Tensor, Tensor]:
        """(B, K, 4) boxes, (B, K) scores and (B, K) labels, best first."""
        ...


@runtime_checkable
class SuppressingDecode(DenseDecode, Protocol):
    """A decoder with non-maximum suppression, such as ``YOLODecode``."""

    score_threshold: float
    iou_threshold: float
    max_detections: int
    multi_label: bool


class ExportGraph(nn.Module):
    """A detector and as much of its decoder as torch can export.

    Args:
        detector: (B, 3, H, W) RGB in [0, 1] to raw predictions.
        decode: its decoder.
        outputs: see ``Signature``. For "detections" of a YOLO the module gives boxes and scores of all places;
            ``with_suppression`` adds the suppression to the ONNX graph.
        takes_uint8: whether images are (B, H, W, 3) uint8 instead.

    Raises:
        ExportError: if the decoder cannot give these outputs.
    """

    def __init__(self, detector: nn.Module, decode: Decode, outputs: Outputs, takes_uint8: bool) -> None:
        super().__init__()
        if outputs != "raw" and not isinstance(decode, DenseDecode):
            raise ExportError(
                f"outputs={outputs}: {type(decode).__name__} has no dense(), which gives the boxes and scores of all "
                "places; use outputs=raw and decode in the program that uses the file"
            )
        if outputs == "detections" and not isinstance(decode, BestDecode | SuppressingDecode):
            raise ExportError(
                f"outputs=detections: {type(decode).__name__} has neither best() nor the thresholds of a suppression; "
                "use outputs=decoded"
            )
        self.detector = detector.eval()
        self.decode = decode
        self.outputs: Outputs = outputs
        self.takes_uint8 = takes_uint8

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The values of ``named``."""
        return tuple(self.named(images).values())

    def named(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs by name, in the order of the file."""
        if self.takes_uint8:
            images = images.permute(0, 3, 1, 2).float() / 255
        predictions = self.detector(images)
        if self.outputs == "raw":
            return raw_outputs(predictions)
        assert isinstance(self.decode, DenseDecode), "checked by the constructor"
        dense = self.decode.dense(predictions)
        if self.outputs == "detections" and isinstance(self.decode, BestDecode):
            boxes, scores, labels = self.decode.best(dense)
            counts = (scores >= self.decode.score_threshold).sum(1)
            return {"boxes": boxes, "scores": scores, "labels": labels, "counts": counts}
        scores = dense.scores
        if self.outputs == "detections" and isinstance(self.decode, SuppressingDecode) and not self.decode.multi_label:
            labels = torch.arange(scores.shape[-1], device=scores.device)
            scores = scores * (labels == scores.argmax(-1, keepdim=True))
        return {"boxes": dense.boxes, "scores": scores}

    def example(self, image_hw: tuple[int, int], dynamic: Dynamic) -> Tensor:
        """Noise of the shape and type that ``forward`` takes; two images if the batch size may vary."""
        batch = 1 if dynamic == "none" else 2  # torch.export treats a batch of 1 as a constant
        images = torch.rand(batch, 3, *image_hw, generator=torch.Generator().manual_seed(0))
        return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous() if self.takes_uint8 else images

    def dynamic_shapes(self, dynamic: Dynamic, largest_stride: int) -> dict[str, object]:
        """The dimensions that may vary, as torch.export wants them."""
        if dynamic == "none":
            return {"images": None}
        dim = torch.export.Dim
        rows, columns = (dim(name, min=2, max=MAX_SIDE_CELLS) for name in ("rows", "columns"))
        first = 1 if self.takes_uint8 else 2
        sides = {first: largest_stride * rows, first + 1: largest_stride * columns} if dynamic == "size" else {}
        return {"images": {0: dim("batch", min=1, max=MAX_BATCH), **sides}}


def raw_outputs(predictions: object) -> dict[str, Tensor]:
    """The tensors of raw predictions, by name.

    Raises:
        ExportError: if the predictions are not those of a detector.
    """
    if isinstance(predictions, YOLOPredictions):
        fields = predictions._asdict()
        return {name: value for name, value in fields.items() if isinstance(value, Tensor)}
    if isinstance(predictions, DETRPredictions):
        answer = predictions.layers[-1]
        return {"logits": answer.logits, "boxes": answer.boxes_cxcywh_norm}
    raise ExportError(f"only detectors can be exported; this model gives {type(predictions).__name__}")


def require_supported(format_name: str, dynamic: Dynamic, *, needs_suppression: bool) -> None:
    """Refuse what a format cannot express.

    Raises:
        ExportError: with the alternatives.
    """
    if needs_suppression and format_name in ("torch_export", "torchscript"):
        raise ExportError(
            f"outputs=detections with format={format_name}: torch cannot export suppression for a batch of images; use "
            "outputs=decoded and torchvision.ops.batched_nms, or format=onnx or openvino, which include suppression"
        )
    if dynamic == "size" and format_name == "torchscript":
        raise ExportError(
            "dynamic=size with format=torchscript: a trace holds the image size of its example; use dynamic=batch, or "
            "format=torch_export, onnx or openvino"
        )
