"""The YOLOX recipes against outputs of the official implementation under the same random weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detkit.assign import SimOTAAssigner
from detkit.decode import YOLODecode
from detkit.losses import YOLOXLoss
from detkit.losses.matching import match
from detkit.models import Detector
from detkit.ops.box_coding import decode_boxes
from detkit.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from detkit.ops.points import anchor_points
from detkit.ops.targets import pack_targets
from detkit.types import Target, YOLOPredictions
from detkit.weights import load_weights
from detkit.weights.projects.yolox import detkit_name
from tests.helpers.yolox_files import detector_of, read_record

POINTS, STRIDES = anchor_points([(52, 52), (26, 26), (13, 13)], [8, 16, 32])
LOSS_NAMES = {"box": "iou_x5", "obj": "obj", "cls": "cls", "l1": "l1"}
TRAIN_CASES = [
    pytest.param("bn_eval_l10", marks=pytest.mark.long),
    pytest.param("bn_eval_l11", marks=pytest.mark.long),
    pytest.param("bn_train_l10", marks=pytest.mark.long),
    "bn_train_l11",
]


@pytest.fixture(scope="module")
def record(shared_reference: Path) -> dict[str, Any]:
    return read_record(shared_reference)


@pytest.fixture
def detector(record: dict[str, Any]) -> Detector:
    detector = detector_of("tiny").eval()
    report = load_weights(record["state_dict"], detector)
    assert report.loaded == report.names and not report.unexpected
    return detector


def rgb_images(record: dict[str, Any]) -> Tensor:
    """The record's images as detkit has them: RGB in [0, 1]."""
    return record["input"].flip(1).float() / 255


def to_points(raw: list[Tensor]) -> Tensor:
    """(B, 85, h, w) of each level to (B, A, 85)."""
    return torch.cat([level.flatten(2).transpose(1, 2) for level in raw], dim=1)


def joined(predictions: YOLOPredictions) -> Tensor:
    """(B, A, 85) in the order of the record: box parameters, objectness, classes."""
    assert predictions.objectness is not None
    return torch.cat((predictions.boxes, predictions.objectness[..., None], predictions.logits), dim=-1)


def raw_predictions(record: dict[str, Any]) -> YOLOPredictions:
    boxes, objectness, logits = to_points(record["raw"]).split((4, 1, 80), dim=-1)
    return YOLOPredictions(logits, boxes, objectness.squeeze(-1), POINTS, STRIDES, "offsets")


def targets_of(record: dict[str, Any]) -> list[Target]:
    boxes, labels = record["targets"]["boxes"], record["targets"]["labels"]
    return [
        Target(cxcywh_to_xyxy(image_boxes), image_labels, torch.zeros(0, 4), image, (416, 416))
        for image, (image_boxes, image_labels) in enumerate(zip(boxes, labels, strict=True))
    ]


@torch.no_grad()
def test_raw_outputs(record: dict[str, Any], detector: Detector) -> None:
    predictions = detector(rgb_images(record))
    torch.testing.assert_close(joined(predictions), to_points(record["raw"]), rtol=0, atol=1e-3)
    assert torch.equal(predictions.points, POINTS)
    assert torch.equal(predictions.strides, STRIDES)


@torch.no_grad()
def test_raw_outputs_in_double_precision(record: dict[str, Any], detector: Detector) -> None:
    image = record["input"][:1].flip(1).double() / 255
    outputs = joined(detector.double()(image))
    torch.testing.assert_close(outputs, to_points(record["raw_f64"]), rtol=0, atol=1e-6)


def test_decoded_boxes(record: dict[str, Any]) -> None:
    predictions = raw_predictions(record)
    boxes = decode_boxes(predictions.boxes, POINTS, STRIDES, "offsets")
    torch.testing.assert_close(xyxy_to_cxcywh(boxes), record["decoded"][..., :4], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("setting", [0, 1], ids=["evaluation", "demo"])
def test_post_processing(record: dict[str, Any], setting: int) -> None:
    """The second setting suppresses across classes: the same as with every best class renamed to one."""
    expected = record["post"][setting]
    predictions = raw_predictions(record)
    labels = predictions.logits.argmax(-1)
    if expected["agnostic"]:
        predictions = predictions._replace(logits=predictions.logits.amax(-1, keepdim=True))
    decode = YOLODecode(expected["conf"], expected["nms"], max_detections=4000, multi_label=False)
    for image, (detections, rows) in enumerate(zip(decode(predictions), expected["result"], strict=True)):
        torch.testing.assert_close(detections.boxes, rows[:, :4], rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(detections.scores, rows[:, 4] * rows[:, 5], rtol=1e-5, atol=1e-6)
        if expected["agnostic"]:
            scores = (predictions.logits[image, :, 0].sigmoid() * predictions.objectness[image].sigmoid()).tolist()  # type: ignore[index]
            kept = [scores.index(score) for score in detections.scores.tolist()]
            assert labels[image, kept].tolist() == rows[:, 6].long().tolist()
        else:
            assert detections.labels.tolist() == rows[:, 6].long().tolist()


@pytest.mark.parametrize("case", TRAIN_CASES)
def test_training_step(record: dict[str, Any], detector: Detector, case: str) -> None:
    """Assignment, loss terms, gradients and running statistics of one step over four images, one of them empty."""
    expected = record["train"][case]
    detector.train("bn_train" in case)
    loss = YOLOXLoss(SimOTAAssigner(), l1_weight=float(case.endswith("1")))
    predictions, targets = detector(rgb_images(record)), targets_of(record)

    matches = match(predictions, pack_targets(targets), loss.assigner)
    with_objects = [image for image, target in enumerate(targets) if len(target.labels)]
    for image, assigned in zip(with_objects, expected["assign"], strict=True):
        of_image = matches.image_P == image
        assert torch.equal(matches.point_P[of_image], assigned["fg"].nonzero().squeeze(1))
        assert torch.equal(matches.labels_P[of_image], assigned["classes"].long())
        boxes = targets[image].boxes[assigned["gt_index"]]
        torch.testing.assert_close(matches.gt_boxes_P4[of_image], boxes)
        torch.testing.assert_close(matches.quality_P[of_image], assigned["iou"], rtol=3e-4, atol=1e-5)

    terms = loss(predictions, pack_targets(targets))
    for name, term in terms.items():
        assert term.item() == pytest.approx(expected["loss"][LOSS_NAMES[name]], rel=3e-5), name
    assert ("l1" in terms) == (expected["loss"]["l1"] > 0)

    torch.stack(list(terms.values())).sum().backward()
    gradients = {name: parameter.grad for name, parameter in detector.named_parameters()}
    norms = {name: gradient.norm().item() for name, gradient in gradients.items() if gradient is not None}
    assert norms == pytest.approx(
        {detkit_name(name): norm for name, norm in expected["grads"]["norms"].items()}, rel=3e-4, abs=1e-5
    )
    for name, gradient in expected["grads"]["full"].items():
        ours = gradients[detkit_name(name)]
        torch.testing.assert_close(ours, gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item())
    state = detector.state_dict()
    for name, statistic in expected.get("after", {}).items():
        torch.testing.assert_close(state[detkit_name(name)], statistic, rtol=1e-5, atol=1e-5)
