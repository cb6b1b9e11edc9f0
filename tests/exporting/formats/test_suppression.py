"""Suppression inside a graph against the decoder in torch."""

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import parser

from detkit.decode import YOLODecode
from detkit.exporting.formats.suppression import with_suppression
from detkit.types import DenseDetections, Detections

IDENTITY = """<ir_version: 10, opset_import: ["" : 20]>
net (float[B,A,4] boxes_in, float[B,A,C] scores_in) => (float[B,A,4] all_boxes, float[B,A,C] all_scores)
{ all_boxes = Identity (boxes_in)  all_scores = Identity (scores_in) }"""


def in_graph(dense: DenseDetections, decode: YOLODecode) -> list[Detections]:
    model = parser.parse_model(IDENTITY)
    model = with_suppression(model, decode.score_threshold, decode.iou_threshold, decode.max_detections)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {"boxes_in": dense.boxes.numpy(), "scores_in": dense.scores.numpy()}
    boxes, scores, labels, counts = (torch.from_numpy(np.asarray(value)) for value in session.run(None, given))
    assert boxes.shape == (len(dense.boxes), decode.max_detections, 4)
    for row, count in enumerate(counts.tolist()):
        assert (scores[row, count:] == 0).all()  # padding
    return [Detections(boxes[row, :n], scores[row, :n], labels[row, :n]) for row, n in enumerate(counts.tolist())]


def crowd(seed: int, num_classes: int = 3, num_images: int = 3) -> DenseDetections:
    """Boxes on top of each other, with distinct scores in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(num_images, 60, 2, generator=generator) * 60
    sizes = 10 + 40 * torch.rand(num_images, 60, 2, generator=generator)
    order = torch.randperm(num_images * 60 * num_classes, generator=generator).float()
    scores = order.view(num_images, 60, num_classes) / order.numel()
    return DenseDetections(torch.cat((corners, corners + sizes), dim=2), scores)


def require_equal(dense: DenseDetections, decode: YOLODecode) -> list[Detections]:
    expected, found = decode.select(dense), in_graph(dense, decode)
    for ours, theirs in zip(expected, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_as_the_decoder(seed: int) -> None:
    found = require_equal(crowd(seed), YOLODecode(0.3003, 0.5, 300))
    assert all(10 < len(image.scores) < 120 for image in found)


def test_one_class() -> None:
    assert len(require_equal(crowd(0, num_classes=1), YOLODecode(0.1003, 0.5, 100))[0].scores) > 5


def test_limit_is_reached() -> None:
    found = require_equal(crowd(1), YOLODecode(0.001, 0.9, 7))
    assert [len(image.scores) for image in found] == [7, 7, 7]


def test_images_without_anything() -> None:
    """In the middle, and all of them."""
    dense = crowd(2)
    dense.scores[1] = 0.01
    found = require_equal(dense, YOLODecode(0.3, 0.5, 20))
    assert [len(image.scores) > 0 for image in found] == [True, False, True]
    dense.scores.mul_(0.1)
    assert [len(image.scores) for image in require_equal(dense, YOLODecode(0.3, 0.5, 20))] == [0, 0, 0]


def test_equal_scores() -> None:
    """The first of equal ones wins."""
    dense = crowd(3)
    dense.scores.copy_((dense.scores * 4).round() / 4 * 0.9)
    expected, found = (side(dense, YOLODecode(0.3, 0.5, 300)) for side in (lambda d, c: c.select(d), in_graph))
    for ours, theirs in zip(expected, found, strict=True):
        rows = ({(*box, score, label) for box, score, label in zip(*map(torch.Tensor.tolist, of), strict=True)}
                for of in (ours, theirs))  # fmt: skip
        assert next(rows) == next(rows)


def test_best_class_of_a_place_alone() -> None:
    """multi_label=False: the graph gives the others no score, see ``ExportGraph``."""
    dense, decode = crowd(4), YOLODecode(0.3, 0.5, 100, multi_label=False)
    best = dense.scores * (torch.arange(3) == dense.scores.argmax(-1, keepdim=True))
    expected, found = decode.select(dense), in_graph(dense._replace(scores=best), decode)
    for ours, theirs in zip(expected, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
