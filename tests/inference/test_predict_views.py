"""Predict with slices and the mirrored image, and at its own threshold: beside what is known of the picture."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detkit.decode import YOLODecode
from detkit.inference import Predictor
from detkit.models import Detector
from detkit.models.backbones import CSPDarknet
from detkit.models.heads import YOLOHead
from detkit.models.necks import FPN
from detkit.types import Detections
from tests.helpers.colour_detector import BLUE, COLOURS, GREEN, RED, Colours

SMALL, ACROSS, LARGE = (181, 120, 184, 131), (60, 40, 73, 55), (100, 10, 250, 90)  # xyxy
PICTURE_HW = (192, 288)  # three times the network's input: its pixels are three of the picture


class Watched(Colours):
    """Remembers how many images it was given at once."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        return super().forward(images)


def predictor(resize: Any = "letterbox") -> Predictor:
    return Predictor(Watched(), Colours.decode, COLOURS, (64, 96), resize)


@pytest.fixture
def picture() -> np.ndarray:
    """A small object inside of windows, one on a seam of four, and one that no window holds."""
    image = np.zeros((*PICTURE_HW, 3), np.uint8)
    for colour, (x1, y1, x2, y2) in ((RED, SMALL), (GREEN, ACROSS), (BLUE, LARGE)):
        image[y1:y2, x1:x2] = np.maximum(image[y1:y2, x1:x2], colour)
    return image


@pytest.fixture(scope="module")
def untrained() -> Predictor:
    """A YOLO that finds something everywhere."""
    torch.manual_seed(0)
    detector = Detector(CSPDarknet(0.33, 0.125), FPN, lambda specs: YOLOHead(specs, num_classes=3))
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if name.endswith("weight") and parameter.ndim == 4:
                parameter.mul_(1.5)
    return Predictor(detector, YOLODecode(), COLOURS, (64, 96), "letterbox")


def boxes_by_name(predictor: Predictor, image: np.ndarray, **options: Any) -> dict[str, list[float]]:
    found = predictor.predict(image, **options)
    assert len(found) == len(set(found.names)), found
    return {one.name: list(one.box) for one in found}


def test_slices_see_small_objects_at_full_size_and_each_object_once(picture: np.ndarray) -> None:
    """Windows as large as the network's input give exact boxes; the whole image alone hardly sees the small one."""
    sliced = boxes_by_name(predictor(), picture, slices=64, overlap=0.25)
    assert sliced["red"] == list(SMALL)
    assert sliced["green"] == list(ACROSS)
    assert np.allclose(sliced["blue"], LARGE, atol=3)
    whole = boxes_by_name(predictor(), picture)
    assert whole.get("red") != list(SMALL) and whole["green"] != list(ACROSS)


@pytest.mark.parametrize("resize", ["letterbox", "squash"])
@pytest.mark.parametrize("flip", [False, True])
def test_batch_size_bounds_what_goes_through_at_once(picture: np.ndarray, resize: Any, flip: bool) -> None:
    expected = predictor(resize).predict([picture, picture[:100]], slices=64, flip=flip)
    for batch_size in (1, 3):
        watched = predictor(resize)
        found = watched.predict([picture, picture[:100]], slices=64, flip=flip, batch_size=batch_size)
        assert max(watched.detector.batches) == batch_size  # type: ignore[arg-type]
        assert [one.boxes.tolist() for one in found] == [one.boxes.tolist() for one in expected]


def test_the_mirrored_image_gives_the_same_boxes(picture: np.ndarray) -> None:
    """Of rectangles on whole pixels of the network's input there is nothing to choose between the two."""
    plain, flipped = boxes_by_name(predictor(), picture), boxes_by_name(predictor(), picture, flip=True)
    assert plain.keys() == flipped.keys()
    for name, box in plain.items():
        assert np.allclose(box, flipped[name], atol=3)


def test_what_only_one_of_image_and_mirror_shows_has_half_its_score() -> None:
    def left_half(images: Tensor) -> list[Detections]:
        one = Detections(torch.tensor([[10.0, 10.0, 20.0, 30.0]]), torch.tensor([0.8]), torch.zeros(1).long())
        return [one] * len(images)

    fixed = Predictor(nn.Identity(), left_half, COLOURS, (64, 96), "letterbox")
    found = fixed.predict(np.zeros((64, 96, 3), np.uint8), flip=True)
    assert found.boxes.tolist() == [[10, 10, 20, 30], [76, 10, 86, 30]]
    np.testing.assert_allclose(found.scores, [0.4, 0.4], rtol=1e-6)
    assert len(fixed.predict(np.zeros((64, 96, 3), np.uint8), flip=True, score_threshold=0.41)) == 0


@pytest.mark.parametrize("options", [{}, {"flip": True}, {"slices": 48}, {"slices": 48, "flip": True}], ids=str)
def test_a_higher_threshold_gives_the_best_of_a_lower_one(untrained: Predictor, options: dict[str, Any]) -> None:
    """To the last bit, though the decoder spares itself the rest; and its own threshold stays."""
    image = np.random.default_rng(0).integers(0, 255, (80, 130, 3), dtype=np.uint8)
    everything = untrained.predict(image, score_threshold=0.001, max_detections=10_000, **options)
    scores = np.sort(everything.scores)[::-1]
    for threshold in scores[[len(scores) // 50, len(scores) // 5]].tolist():
        found = untrained.predict(image, score_threshold=threshold, max_detections=10_000, **options)
        expected = everything.filter(threshold)
        assert 0 < len(expected) < len(everything)
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(found.labels, expected.labels)
    assert untrained.decode.score_threshold == 0.001  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slices": 31}, "slices must be at least 32 pixels a side; got 31"),
        ({"overlap": 0.95}, r"overlap must lie in \[0, 0\.9\], a part of a window; got 0\.95"),
        ({"overlap": -0.1}, r"overlap must lie in .* got -0\.1"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictor().predict([], **options)
