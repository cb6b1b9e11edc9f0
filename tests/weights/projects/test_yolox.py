"""Official YOLOX weights in detkit's detectors: every tensor at its place, every misfit told."""

import json
from pathlib import Path

import pytest
import torch

from detkit.errors import CheckpointError
from detkit.models import Detector, Preprocess
from detkit.weights import load_weights
from detkit.weights.projects.coco_names import COCO_NAMES
from detkit.weights.projects.yolox import detkit_name
from tests.helpers.yolox_files import OfficialShapes, detector_of, official_weights

PARAMETERS = {
    "nano": 912_159,
    "tiny": 5_055_855,
    "s": 8_968_255,
    "m": 25_326_495,
    "l": 54_208_895,
    "x": 99_071_455,
}


COUNTED = 538  # of the 642 tensors of nano, 104 are counters of batch norm


@pytest.fixture
def detector() -> Detector:
    return detector_of("nano")


@pytest.mark.parametrize("size", PARAMETERS)
def test_official_names_are_the_published_ones(shared_reference: Path, size: str) -> None:
    published = json.loads((shared_reference / "keys" / f"keys_yolox_{size}_official.json").read_text())
    assert OfficialShapes(size) == {name: tuple(shape) for name, (shape, _) in published.items()}


@pytest.mark.parametrize("size", PARAMETERS)
def test_recipe_has_the_published_tensors(size: str) -> None:
    with torch.device("meta"):
        detector = detector_of(size)
    ours = {name: tuple(tensor.shape) for name, tensor in detector.state_dict().items() if "preprocess" not in name}
    assert ours == {detkit_name(name): shape for name, shape in OfficialShapes(size).items()}
    assert sum(parameter.numel() for parameter in detector.parameters()) == PARAMETERS[size]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_tensor_is_loaded(detector: Detector, dtype: torch.dtype) -> None:
    weights = official_weights("nano")
    report = load_weights(weights, detector.to(dtype))
    assert str(report).splitlines()[0] == f"state_dict: loaded {COUNTED} of {COUNTED} tensors"
    for name, tensor in detector.state_dict().items():
        assert tensor.dtype in (dtype, torch.int64), name
    state = detector.state_dict()
    for name, tensor in weights.items():
        assert torch.equal(state[detkit_name(name)], tensor.to(state[detkit_name(name)].dtype)), name


def test_class_rows_are_left_out_when_classes_differ() -> None:
    detector = detector_of("nano", num_classes=3)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items() if "class_logits" in name}
    report = load_weights(official_weights("nano"), detector)
    assert f"loaded {COUNTED - 6} of {COUNTED} tensors" in str(report)
    assert "class rows: 0 of 3 from the file, the others start untrained" in str(report)
    assert not (report.missing or report.unexpected or report.other_shape)
    assert all(torch.equal(detector.state_dict()[name], tensor) for name, tensor in before.items())


def test_class_rows_are_kept_by_name() -> None:
    """Spelling of case, spaces and dashes does not matter; a new class keeps its own start."""
    detector = detector_of("nano", num_classes=3)
    before = detector.state_dict()["head.class_logits.1.weight"].clone()
    weights = official_weights("nano")
    report = load_weights(weights, detector, ["Traffic_Light", "cell", "dog"])
    assert report.kept_classes == (0, 2)
    assert "class rows: 2 of 3 from the file" in str(report)
    for layer in ("weight", "bias"):
        ours, theirs = detector.state_dict()[f"head.class_logits.1.{layer}"], weights[f"head.cls_preds.1.{layer}"]
        assert torch.equal(ours[0], theirs[COCO_NAMES.index("traffic light")])
        assert torch.equal(ours[2], theirs[COCO_NAMES.index("dog")])
    assert torch.equal(detector.state_dict()["head.class_logits.1.weight"][1], before[1])


@torch.no_grad()
def test_classes_in_another_order_give_the_same_scores_in_that_order(detector: Detector) -> None:
    weights = official_weights("nano")
    other = detector_of("nano").eval()
    load_weights(weights, detector.eval())
    load_weights(weights, other, COCO_NAMES[::-1])
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(detector(image).logits, other(image).logits.flip(-1))


def test_a_file_of_own_classes_is_loaded_whole_when_as_many() -> None:
    """Nobody knows the names of classes that are not the 80 published ones."""
    detector = detector_of("nano", num_classes=3)
    report = load_weights(official_weights("nano", num_classes=3), detector, ["a", "b", "c"])
    assert len(report.loaded) == len(report.names)


def test_what_does_not_fit_is_told(detector: Detector) -> None:
    weights = official_weights("nano")
    del weights["backbone.C3_n4.conv3.conv.weight"]
    weights["backbone.more.conv.weight"] = torch.zeros(1)
    weights["head.reg_preds.2.bias"] = torch.zeros(5)
    weights["head.cls_preds.0.weight"] = torch.zeros(80, 9, 1, 1)
    report = load_weights(weights, detector)
    assert report.missing == ("neck.bottom_up.1.join.conv.weight",)
    assert report.unexpected == ("backbone.more.conv.weight",)
    assert report.other_shape == (
        "head.class_logits.0.weight (80, 9, 1, 1) in the file, (80, 64, 1, 1) in the model",
        "head.box_parameters.2.bias (5,) in the file, (4,) in the model",
    )
    assert f"loaded {COUNTED - 3} of {COUNTED} tensors" in str(report)
    assert "\n  unexpected: backbone.more.conv.weight" in str(report)


def test_another_size_is_refused_and_changes_nothing(detector: Detector) -> None:
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    with pytest.raises(
        CheckpointError,
        match=r"(?s)another network: .* weights_except.* \(24, 12, 3, 3\) in the file, \(16, 12, 3, 3\)",
    ):
        load_weights(official_weights("tiny"), detector)
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())


@pytest.mark.parametrize("given", [None, Preprocess("rgb", 255.0), Preprocess(mean=(1.0, 1.0, 1.0))], ids=str)
def test_pixel_values_come_with_the_weights(given: Preprocess | None) -> None:
    """Whatever the recipe says of them: with others nothing would fail, and nothing be found either."""
    detector = detector_of("nano")
    detector.preprocess = given or Preprocess()
    report = load_weights(official_weights("nano"), detector)
    assert "images: BGR, 0..255 (as these weights were trained)" in str(report)
    image = torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1)
    torch.testing.assert_close(detector.preprocess(image).flatten(), torch.tensor([229.5, 127.5, 25.5]))
