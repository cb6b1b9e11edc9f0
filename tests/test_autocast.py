"""Whatever autocast does to the network, what follows it is computed in float32: boxes, overlaps, costs, losses.

The predictions are given, in the dtypes in which a network may hand them over, and the same numbers come out inside of
autocast as in float32 outside; with the autocast of the CPU, and that of CUDA, which lowers other operations
(tests/test_pretended_cuda.py runs this one too).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map

from detkit.assign import HungarianAssigner, SimOTAAssigner, TaskAlignedAssigner
from detkit.decode import ClassDecode, DETRDecode, YOLODecode
from detkit.losses import ClassificationLoss, DETRLoss, YOLOLoss, YOLOXLoss
from detkit.losses.matching import match
from detkit.ops.box_coding import decode_boxes, encode_offsets
from detkit.ops.distances import boxes_to_distances
from detkit.ops.iou import IouKind, aligned_iou, pairwise_iou
from detkit.ops.points import anchor_points
from detkit.ops.targets import pack_targets
from detkit.types import BoxCoding, ImageLabels, Targets, YOLOPredictions
from tests.helpers.detr_batches import IMAGE_HW, NUM_CLASSES, random_predictions, random_targets

COUNTS = (3, 0, 5)  # objects of each image
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Case(NamedTuple):
    """Predictions, what they are of, and what is computed of both: in training, with gradients, and in evaluation."""

    predictions: Any
    targets: Any
    loss: Callable[[Any, Any], dict[str, Tensor]]
    others: Callable[[Any, Any], dict[str, Any]]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def targets_with_crowds() -> Targets:
    found = random_targets(COUNTS, seeded(1))
    found[2] = found[2]._replace(crowd_boxes=torch.tensor([[10.0, 20.0, 90.0, 70.0]]))
    return pack_targets(found)


def yolo_predictions(parameters: int, box_coding: BoxCoding, *, objectness: bool = False) -> YOLOPredictions:
    sizes_hw = [(IMAGE_HW[0] // stride, IMAGE_HW[1] // stride) for stride in (8, 16, 32)]
    points, strides = anchor_points(sizes_hw, (8, 16, 32))
    raw = torch.randn(len(COUNTS), len(points), NUM_CLASSES + 1 + parameters, generator=seeded(2)) * 2
    logits, objects, boxes = raw.split([NUM_CLASSES, 1, parameters], dim=-1)
    return YOLOPredictions(logits, boxes, objects.squeeze(-1) if objectness else None, points, strides, box_coding)


def yolo(predictions: YOLOPredictions, loss: YOLOLoss | YOLOXLoss) -> Case:
    def others(given: YOLOPredictions, targets: Targets) -> dict[str, Any]:
        boxes = decode_boxes(given.boxes, given.points, given.strides, given.box_coding)
        of_image, truth = boxes[2], targets.of_image(2).boxes
        decode = YOLODecode(score_threshold=0.3)
        return {
            "boxes": boxes,
            "assignment": match(given, targets, loss.assigner),
            "iou": [aligned_iou(of_image[:5], truth, kind) for kind in get_args(IouKind)],
            "distances": boxes_to_distances(of_image, given.points, given.strides),
            "offsets": encode_offsets(boxes, given.points, given.strides),
            "dense": decode.dense(given),
            "detections": decode(given),
        }

    return Case(predictions, targets_with_crowds(), loss, others)


def detr(loss: DETRLoss, assigner: HungarianAssigner) -> Case:
    predictions = random_predictions(COUNTS, seeded(3), layers=2, groups=2)

    def others(given: Any, targets: Targets) -> dict[str, Any]:
        outputs = [*given.layers, given.encoder]
        return {
            "costs": [assigner._costs(output, targets, given.image_hw) for output in outputs],
            "pairs": assigner(outputs, targets, given.image_hw),
            "dense": DETRDecode().dense(given),
            "detections": DETRDecode()(given),
        }

    return Case(predictions, targets_with_crowds(), loss, others)


def overlaps() -> Case:
    """Of boxes that are rounded themselves."""
    boxes_a, boxes_b = (random_targets((9,), seeded(seed))[0].boxes for seed in (5, 6))

    def loss(given: list[Tensor], _: Any) -> dict[str, Tensor]:
        return {kind: aligned_iou(given[0], given[1], kind).sum() for kind in get_args(IouKind)}

    return Case([boxes_a, boxes_b], [], loss, lambda given, _: {"pairwise": pairwise_iou(given[0], given[1])})


def classifier() -> Case:
    logits = torch.randn(6, 5, generator=seeded(4)) * 4
    targets = ImageLabels(torch.tensor([0, 1, 2, 3, 4, 4]), np.arange(6))
    loss = ClassificationLoss(label_smoothing=0.1, class_weights=[1.0, 2.0, 0.5, 3.0, 1.0])
    return Case(logits, targets, loss, lambda given, _: {"ranked": ClassDecode()(given)})


CASES: dict[str, Callable[[], Case]] = {
    "yolo": lambda: yolo(yolo_predictions(64, "distances"), YOLOLoss(TaskAlignedAssigner())),
    "yolo varifocal giou": lambda: yolo(
        yolo_predictions(32, "distances"), YOLOLoss(TaskAlignedAssigner(), cls_loss="varifocal", iou="giou")
    ),
    "yolo without bins": lambda: yolo(yolo_predictions(4, "distances"), YOLOLoss(TaskAlignedAssigner())),
    "yolox": lambda: yolo(yolo_predictions(4, "offsets", objectness=True), YOLOXLoss(SimOTAAssigner(), l1_weight=1.0)),
    "detr varifocal": lambda: detr(DETRLoss(HungarianAssigner()), HungarianAssigner()),
    "detr focal": lambda: detr(DETRLoss(HungarianAssigner(), cls_loss="focal"), HungarianAssigner(alpha=0.3)),
    "detr bce": lambda: detr(DETRLoss(HungarianAssigner(), cls_loss="bce"), HungarianAssigner(gamma=1.5)),
    "overlaps": overlaps,
    "classifier": classifier,
}


def computed(name: str, dtype: torch.dtype, device: str, autocast: torch.dtype | None) -> dict[str, Tensor]:
    """All numbers of a case for predictions rounded to a dtype; without autocast those are float32 again."""
    case = CASES[name]()

    def given(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = value.detach().to(device)
        if not value.is_floating_point():
            return value
        return value.to(dtype).to(torch.float32 if autocast is None else dtype).requires_grad_()

    predictions = tree_map(given, case.predictions)
    if isinstance(predictions, YOLOPredictions):
        points, strides = case.predictions.points.to(device), case.predictions.strides.to(device)
        predictions = predictions._replace(points=points, strides=strides)
    targets = tree_map(lambda value: value.to(device) if isinstance(value, Tensor) else value, case.targets)
    with torch.autocast(device, autocast or torch.bfloat16, enabled=autocast is not None):
        terms = case.loss(predictions, targets)
        with torch.no_grad():
            others = case.others(predictions, targets)
    torch.stack(list(terms.values())).sum().backward()
    gradients = tree_map(lambda value: value.grad if isinstance(value, Tensor) else None, predictions)
    found = tree_flatten_with_path({"loss": terms, "gradient": gradients, **others})[0]
    return {keystr(path): value.detach().cpu() for path, value in found if isinstance(value, Tensor)}


def differences(name: str, device: str) -> list[str]:
    """What differs by more than 1e-5 of itself.

    A gradient of rounded predictions is rounded as they are, and is the sum of those of several terms.
    """
    wrong = []
    for dtype in DTYPES:
        expected = computed(name, dtype, device, None)
        assert len(expected) > 3
        for autocast in (torch.bfloat16, torch.float16):
            found = computed(name, dtype, device, autocast)
            assert found.keys() == expected.keys()
            for key, value in found.items():
                wanted, atol = expected[key], 0.0
                if "gradient" in key:
                    wanted, atol = wanted.to(dtype), torch.finfo(dtype).eps * float(wanted.abs().max())
                if value.dtype != wanted.dtype or not torch.allclose(value, wanted, rtol=1e-5, atol=atol):
                    error = (value.double() - wanted.double()).abs().max()
                    wrong.append(f"{key} of {dtype} in {autocast}: {value.dtype}, {error:g} off")
    return wrong


@pytest.mark.parametrize("name", CASES)
def test_on_the_cpu(name: str) -> None:
    assert not (found := differences(name, "cpu")), "\n".join(found)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu(name: str) -> None:
    assert not (found := differences(name, "cuda")), "\n".join(found)
