"""Every form of an export finds what its detector finds."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

import detkit
from detkit.exporting.verify.certificate import compare_detections, detect_batch
from detkit.inference.predictor import Predictor
from tests.exporting.conftest import Exported
from tests.exporting.tiny import CLASS_NAMES, IMAGE_HW

# What was measured: boxes 2e-5 pixels apart, scores 5e-7.
FAR_PX, FAR_SCORE = 1e-3, 1e-5


def require_alike(reference: Predictor, file: Path, images: Tensor) -> None:
    """The same labels at the same places, image by image and all at once."""
    exported, expected = detkit.load(file, ["torch"]), detect_batch(reference, images)
    image_by_image = [detect_batch(exported, image)[0] for image in images.split(1)]
    for found in (detect_batch(exported, images), image_by_image):
        difference = compare_detections(expected, found)
        assert difference.matched > 10 * len(images)
        assert difference.unmatched == 0
        assert difference.largest_box_px < FAR_PX
        assert difference.largest_score < FAR_SCORE
        assert [len(image.scores) for image in found] == [len(image.scores) for image in expected]
        for ours, theirs in zip(expected, found, strict=True):
            assert torch.equal(ours.labels[:10], theirs.labels[:10])
            torch.testing.assert_close(ours.scores, theirs.scores, atol=FAR_SCORE, rtol=0)


@pytest.mark.parametrize("outputs", ["detections", "decoded"])
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_any_number_and_any_size(yolo: Exported, images: Tensor, runtime: str, outputs: str) -> None:
    file = yolo.files[f"{runtime} {outputs}"]
    require_alike(yolo.reference, file, images)
    require_alike(yolo.reference, file, torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_raw_outputs_of_bytes(yolo_raw: Exported, images: Tensor, runtime: str) -> None:
    require_alike(yolo_raw.reference, yolo_raw.files[f"{runtime} raw"], images)


@pytest.mark.parametrize("name", ["torch_export", "torchscript"])
def test_programs_of_torch(yolo_torch: Exported, images: Tensor, name: str) -> None:
    require_alike(yolo_torch.reference, yolo_torch.files[f"{name} decoded"], images)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_detr(rtdetr: Exported, images: Tensor, runtime: str) -> None:
    require_alike(rtdetr.reference, rtdetr.files[f"{runtime} detections"], images)


def test_no_norm_is_left(yolo: Exported, rtdetr: Exported) -> None:
    """Folded into their convolutions; a DETR keeps its layer norms."""
    for exported in (yolo, rtdetr):
        path = next(file for file in exported.files.values() if file.suffix == ".onnx")
        operators = {node.op_type for node in onnx.load(path).graph.node}
        assert "Conv" in operators
        assert "BatchNormalization" not in operators
        assert "Sqrt" not in operators  # what a norm becomes when it is taken apart


def test_another_size_needs_dynamic_size(yolo_torch: Exported) -> None:
    exported = detkit.load(yolo_torch.files["torch_export decoded"], ["torch"])
    height, width = IMAGE_HW
    with pytest.raises(ValueError, match=rf"takes images of {height} x {width} pixels alone; got 64 x 64"):
        exported.detector(torch.zeros(1, 3, 64, 64))


def test_it_is_used_as_the_detector_is(yolo: Exported, images: Tensor) -> None:
    """predict: names, original pixels, thresholds."""
    exported = detkit.load(yolo.files["onnx detections"])
    assert (exported.class_names, exported.image_hw) == (CLASS_NAMES, IMAGE_HW)
    picture = (images[0].permute(1, 2, 0) * 255).round().to(torch.uint8).repeat(2, 3, 1).numpy()
    for threshold in (0.01, 0.2):
        ours, theirs = (side.predict(picture, score_threshold=threshold) for side in (yolo.reference, exported))
        assert len(ours) == len(theirs) > 0
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-2, rtol=0)
        assert ours.boxes.max() > max(IMAGE_HW)
        assert ours.names == theirs.names
