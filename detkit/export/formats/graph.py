"""A detector as it is exported: images in, plain tensors out."""

from typing import Any

import torch
from torch import Tensor, nn

from detkit.errors import ExportError
from detkit.inference.runtimes.forms import Dynamic, Outputs
from detkit.types import DETRPredictions, YOLOPredictions

MAX_SIDE_CELLS = 512  # of dynamic sizes, in largest strides
MAX_BATCH = 4096


class ExportGraph(nn.Module):
    """What a file holds.

    Args:
        detector: (B, 3, H, W) RGB in [0, 1] to raw predictions; in evaluation mode.
        decode: its decoder.
        outputs: see ``Signature``; a YOLO gives "decoded" in place of "detections": what is left, the suppression,
            is no arithmetic and is added by ``suppression``.
        takes_uint8: whether images are (B, H, W, 3) uint8 instead.

    Raises:
        ExportError: if the decoder cannot give these outputs.
    """

    def __init__(self, detector: nn.Module, decode: Any, outputs: Outputs, takes_uint8: bool) -> None:
        super().__init__()
        if outputs != "raw" and not hasattr(decode, "dense"):
            raise ExportError(
                f"outputs={outputs}: {type(decode).__name__} has no dense(), which gives the boxes and scores of all "
                "places; use outputs=raw and decode in the program that uses the file"
            )
        self.detector = detector.eval()
        self.decode = decode
        self.outputs: Outputs = outputs
        self.takes_uint8 = takes_uint8

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs without their names."""
        return tuple(self.named(images).values())

    def named(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs by name, in the order in which the file has them."""
        if self.takes_uint8:
            images = images.permute(0, 3, 1, 2).float() / 255
        predictions = self.detector(images)
        if self.outputs == "raw":
            return raw_outputs(predictions)
        dense = self.decode.dense(predictions)
        if self.outputs == "detections" and hasattr(self.decode, "best"):
            boxes, scores, labels = self.decode.best(dense)
            counts = (scores >= self.decode.score_threshold).sum(1)
            return {"boxes": boxes, "scores": scores, "labels": labels, "counts": counts}
        scores = dense.scores
        if self.outputs == "detections" and not self.decode.multi_label:
            labels = torch.arange(scores.shape[-1], device=scores.device)
            scores = scores * (labels == scores.argmax(-1, keepdim=True))
        return {"boxes": dense.boxes, "scores": scores}

    def example(self, image_hw: tuple[int, int], dynamic: Dynamic) -> Tensor:
        """Noise of the shape and type that ``forward`` takes; two images where the batch may vary."""
        batch = 1 if dynamic == "none" else 2  # torch.export takes a batch of 1 for a constant
        images = torch.rand(batch, 3, *image_hw, generator=torch.Generator().manual_seed(0))
        return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous() if self.takes_uint8 else images

    def dynamic_shapes(self, dynamic: Dynamic, largest_stride: int) -> dict[str, Any]:
        """Which dimensions may vary, for torch.export."""
        if dynamic == "none":
            return {"images": None}
        dim = torch.export.Dim
        rows, columns = (dim(name, min=2, max=MAX_SIDE_CELLS) for name in ("rows", "columns"))
        first = 1 if self.takes_uint8 else 2
        sides = {first: largest_stride * rows, first + 1: largest_stride * columns} if dynamic == "size" else {}
        return {"images": {0: dim("batch", min=1, max=MAX_BATCH), **sides}}


def raw_outputs(predictions: Any) -> dict[str, Tensor]:
    """The tensors of raw predictions, by name.

    Raises:
        ExportError: if they are those of no detector.
    """
    if isinstance(predictions, YOLOPredictions):
        fields = predictions._asdict()
        return {name: value for name, value in fields.items() if isinstance(value, Tensor)}
    if isinstance(predictions, DETRPredictions):
        answer = predictions.layers[-1]
        return {"logits": answer.logits, "boxes": answer.boxes_cxcywh_norm}
    raise ExportError(f"only detectors can be exported; this model gives {type(predictions).__name__}")


def refuse(format_name: str, dynamic: Dynamic, *, needs_suppression: bool) -> None:
    """What a format cannot do.

    Raises:
        ExportError: with what can be done instead.
    """
    if needs_suppression and format_name in ("torch_export", "torchscript"):
        raise ExportError(
            f"outputs=detections with format={format_name}: torch has no suppression for a whole batch of images; use "
            "outputs=decoded and torchvision.ops.batched_nms, or format=onnx or openvino, which have it inside"
        )
    if dynamic == "size" and format_name == "torchscript":
        raise ExportError(
            "dynamic=size with format=torchscript: a trace holds the sizes that it has seen; use dynamic=batch, or "
            "format=torch_export, onnx or openvino"
        )
