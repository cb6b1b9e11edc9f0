"""Images in any form to boxes in their own pixels: by a rectangle of known place, and beside the validation loop."""

import logging
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from detkit.data import CocoDataModule
from detkit.decode import ClassDecode, DETRDecode, YOLODecode
from detkit.errors import CheckpointError, DataError
from detkit.inference import ImageDetections, Predictor
from detkit.inference.exported_detector import ExportedDecode
from detkit.models import Detector
from detkit.models.backbones import CSPDarknet
from detkit.models.heads import YOLOHead
from detkit.models.necks import FPN
from detkit.ops.boxes import boxes_to_original
from detkit.types import Detections
from tests.helpers.colour_detector import BLUE, BOX, COLOURS, GREEN, RED, Colours, picture, predictor, save, tensor
from tests.helpers.small_rtdetr import small_rtdetr
from tests.helpers.small_set import write_split


def in_any_form(path: Path, image: np.ndarray) -> list[Any]:
    floats = tensor(image) / 255
    own = [image, Image.fromarray(image), tensor(image), floats, floats.half(), floats.double().requires_grad_()]
    return [path, str(path), *own]


@pytest.mark.parametrize("resize", ["letterbox", "squash"])
def test_boxes_are_in_pixels_of_the_original(tmp_path: Path, resize: str) -> None:
    """100 x 64 pixels at (60, 16), of each form the same; a pixel of the input is about two of the image."""
    image = picture(BLUE)
    for form in in_any_form(save(tmp_path / "a.png", image), image):
        found = predictor(resize).predict(form)
        assert isinstance(found, ImageDetections)
        assert found.names == ["blue"] and found.image_hw == (120, 200)
        np.testing.assert_allclose(found.boxes[0], BOX, atol=2.2)
        assert found.boxes.tolist() == predictor(resize).predict(image).boxes.tolist()
        assert found.path == (tmp_path / "a.png" if isinstance(form, str | Path) else None)
        np.testing.assert_array_equal(found.draw(), found.draw(image))


def test_what_reaches_the_edge_is_clipped() -> None:
    def decode(images: Tensor) -> list[Detections]:
        return [Detections(torch.tensor([[-9.0, 30.0, 200.0, 200.0]]), torch.ones(1), torch.zeros(1).long())] * len(
            images
        )

    found = Predictor(nn.Identity(), decode, COLOURS, (64, 96), "letterbox").predict(picture())
    np.testing.assert_allclose(found.boxes[0], (0, 30 / 0.475, 200, 120), rtol=0.01)


def test_bgr() -> None:
    """Of arrays and tensors, and a picture of Pillow says itself what it is."""
    image = picture(RED, GREEN)
    assert predictor().predict(image).names == ["red", "green"]
    assert predictor().predict(image, bgr=True).names == ["green", "blue"]
    assert predictor().predict(tensor(image), bgr=True).names == ["green", "blue"]
    assert predictor().predict(image[..., ::-1], bgr=True).names == ["red", "green"]
    assert predictor().predict(Image.fromarray(image), bgr=True).names == ["red", "green"]


def test_grey_and_read_only_arrays() -> None:
    grey = picture(RED)[..., 0].copy()
    grey.flags.writeable = False
    for resize in ("letterbox", "squash"):
        assert predictor(resize).predict(grey).names == ["red", "green", "blue"]


def test_many_images_in_their_order(tmp_path: Path) -> None:
    """A folder, a pattern and a list of everything; the batch changes nothing."""
    for name, colour in (("10.png", GREEN), ("2.png", RED), ("in/3.png", BLUE)):
        save(tmp_path / "photos" / name, picture(colour))
    photos, detector = tmp_path / "photos", predictor()
    assert [found.names for found in detector.predict(photos)] == [["red"], ["green"], ["blue"]]
    assert [found.names for found in detector.predict(str(photos / "*.png"))] == [["red"], ["green"]]
    mixed = [picture(), photos, tensor(picture(RED, BLUE)), str(photos / "in/*"), photos / "2.png"]
    for images, batch_size in ((mixed, 1), (tuple(mixed), 3), (iter(mixed), 99)):
        found = detector.predict(images, batch_size=batch_size)
        assert [image.names for image in found] == [
            [],
            ["red"],
            ["green"],
            ["blue"],
            ["red", "blue"],
            ["blue"],
            ["red"],
        ]
    assert [found.names for found in detector.predict([photos / "2.png"])] == [["red"]]
    assert detector.predict([]) == []


def test_score_and_number() -> None:
    image = picture(RED, GREEN, BLUE)
    detector = predictor()
    np.testing.assert_allclose(detector.predict(image).scores, [0.9, 0.7, 0.5])
    assert detector.predict(image, score_threshold=0.6).names == ["red", "green"]
    assert detector.predict(image, max_detections=1).names == ["red"]


def test_detections_outlive_inference_mode_and_pickling() -> None:
    """Tensors may take part in training, and results go to other processes."""
    detector = predictor()
    detector.detector.train()
    found = detector.predict(picture(RED))
    [detected] = detector.detect([picture(RED)])
    for values in (detected.boxes, detected.scores, detected.labels):
        (values * torch.ones(1, requires_grad=True)).sum().backward()
    again = pickle.loads(pickle.dumps(found))
    assert list(again) == list(found)
    np.testing.assert_array_equal(again.draw(), found.draw())


def test_autocast_is_off() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert predictor().predict(picture(RED)).names == ["red"]  # Colours looks whether it is


def test_a_file_that_cannot_be_read_raises_or_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "1.png", picture(RED))
    (tmp_path / "2.jpg").write_text("no picture")
    save(tmp_path / "3.png", picture(BLUE))
    with pytest.raises(DataError, match=r"2\.jpg: not an image: it begins with b'no pictu'"):
        predictor().predict(tmp_path)
    with pytest.raises(DataError, match=r"2\.jpg: not an image"):
        predictor().predict(tmp_path / "2.jpg", unreadable="skip")
    with caplog.at_level(logging.WARNING):
        found = predictor().predict([tmp_path, tmp_path / "4.png"], unreadable="skip", batch_size=2)
    assert [image.path for image in found] == [tmp_path / "1.png", tmp_path / "3.png"]
    first, second, count = caplog.messages
    assert "skipped" in first and "2.jpg: not an image" in first
    assert "4.png: cannot be read: No such file" in second
    assert count == "2 of 4 images were skipped: they cannot be read"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"score_threshold": 0.0005},
            r"score_threshold must lie in \[0\.001, 1\]; got 0\.0005; predictor\.decode\.score_threshold may be set",
        ),
        ({"score_threshold": 25}, "got 25$"),
        ({"score_threshold": float("nan")}, "got nan"),
        ({"max_detections": 0}, "limits must be at least 1; got max_detections=0, batch_size=8"),
        ({"batch_size": -1}, "limits must be at least 1; got max_detections=100, batch_size=-1"),
        ({"unreadable": "ignore"}, "unreadable must be raise or skip; got 'ignore'"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    detector = Predictor(Colours(), YOLODecode(), COLOURS, (64, 96), "letterbox")
    with pytest.raises(ValueError, match=message):
        detector.predict(picture(RED), **options)


def test_the_remedy_for_a_low_threshold_helps() -> None:
    """Of an export with all of its decoding inside, another export alone does."""
    detector = Predictor(Colours(), YOLODecode(), COLOURS, (64, 96), "letterbox")
    assert isinstance(detector.decode, YOLODecode)
    detector.decode.score_threshold = 0.0005
    detector.predict([], score_threshold=0.0005)
    decode = ExportedDecode(YOLODecode(score_threshold=0.25), "detections")
    with pytest.raises(ValueError, match=r"lie in \[0\.25, 1\]; got 0\.1; export it again with another score_thr"):
        Predictor(Colours(), decode, COLOURS, (64, 96), "letterbox").predict([], score_threshold=0.1)


def test_a_classifier_is_refused() -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    decode: Any = ClassDecode()
    classifier = Predictor(model, decode, COLOURS, (64, 96), "squash")
    with pytest.raises(CheckpointError, match="needs a detector; the checkpoint's decode gives RankedClasses"):
        classifier.predict(picture(RED))


def test_repr() -> None:
    assert repr(predictor()) == "<Predictor of 3 classes, letterbox to 96 x 64, on cpu>"


def yolo() -> Detector:
    torch.manual_seed(0)
    return Detector(CSPDarknet(depth_multiple=0.33, width_multiple=0.125), FPN, partial(YOLOHead, num_classes=2))


class InFloat64(nn.Module):
    """The same detector without the rounding by which batches of other sizes choose other queries."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector.double()

    def forward(self, images: Tensor) -> Any:
        return self.detector(images.double())


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("make", "decode", "resize"),
    [(yolo, YOLODecode(), "letterbox"), (partial(small_rtdetr, num_classes=2), DETRDecode(), "squash")],
)
def test_the_same_as_in_validation(tmp_path: Path, make: Callable[[], Detector], decode: Any, resize: Any) -> None:
    """Boxes and scores of the validation loop, of images of another size than the input, in other batches."""
    write_split(tmp_path, "val", 5, size_hw=(90, 128), suffix="jpg")
    detector = InFloat64(make()).eval()
    with torch.no_grad():
        for parameter in detector.detector.head.parameters():
            parameter.normal_(std=0.1)  # scores and boxes that differ
    data = CocoDataModule(root=str(tmp_path), image_hw=(64, 96), resize=resize, val_batch_size=2, num_workers=0)
    expected: list[Detections] = []
    with torch.no_grad():
        for batch in data.val_dataloader():
            of_batch = decode(detector(data.on_after_batch_transfer(batch, 0).images))
            for detections, target in zip(of_batch, batch.targets.unpack(), strict=True):
                boxes = boxes_to_original(detections.boxes, target.original_hw, target.scale_xy, target.pad_xy)
                expected.append(detections._replace(boxes=boxes))
    predictor = Predictor(detector, decode, ("thing", "other"), (64, 96), resize)
    lowest = decode.score_threshold
    found = predictor.predict(tmp_path / "val", score_threshold=lowest, max_detections=300, batch_size=3)
    assert [image.path.name for image in found if image.path] == [f"{row}.jpg" for row in range(5)]
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours) > 40
        np.testing.assert_allclose(ours.scores, theirs.scores.float(), rtol=0, atol=1e-6)
        np.testing.assert_allclose(ours.boxes, theirs.boxes.float(), rtol=0, atol=1e-4)
        np.testing.assert_array_equal(ours.labels, theirs.labels)


@pytest.mark.gpu
def test_on_another_device() -> None:
    image = picture(RED, BLUE)
    found = predictor().to("cuda").predict([image, tensor(image).cuda()])
    assert [list(image) for image in found] == [list(predictor().predict(image))] * 2
