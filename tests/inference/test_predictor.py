"""A detector file alone gives the detector back, and tells what does not fit."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import detkit
from detkit import recipe
from detkit.checkpoint import write_checkpoint, write_detector
from detkit.errors import CheckpointError, RecipeError
from tests.helpers.tiny_detectors import MODEL

DECODE = {"_target_": "detkit.decode.YOLODecode", "score_threshold": 0.003, "max_detections": 7}
METADATA = {"recipe": {"model": MODEL, "decode": DECODE}, "class_names": ["cat", "dog"], "image_hw": [64, 96]}


@pytest.fixture
def detector() -> torch.nn.Module:
    torch.manual_seed(0)
    return recipe.instantiate(MODEL).eval()


def write(path: Path, detector: torch.nn.Module, **metadata: Any) -> Path:
    write_detector(path, detector.state_dict(), METADATA | metadata)
    return path


def test_a_file_gives_its_detector_back(tmp_path: Path, detector: torch.nn.Module) -> None:
    """Same detections as before the file, bit for bit; a run's folder and a checkpoint do as well."""
    path = write(tmp_path / "detector.safetensors", detector)
    checkpoint = tmp_path / "step-00000003.ckpt"
    state = {"state_dict": {f"model.{name}": t for name, t in detector.state_dict().items()}, "detkit": METADATA}
    write_checkpoint(checkpoint, state, step=3, epoch=1, score=None, facts={})
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected = recipe.instantiate(DECODE)(detector(images))
        for place in (path, tmp_path, str(path), checkpoint):
            predictor = detkit.load(place)
            found = predictor.decode(predictor.detector(images))
            assert [len(image.scores) for image in found] == [7, 7]
            for ours, theirs in zip(found, expected, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert predictor.class_names == ("cat", "dog")
    assert predictor.image_hw == (64, 96)
    assert not predictor.detector.training


def test_images_come_to_their_size_as_in_training(tmp_path: Path, detector: torch.nn.Module) -> None:
    assert detkit.load(write(tmp_path / "a.safetensors", detector)).resize == "letterbox"
    squashed = {**METADATA["recipe"], "data": {"_target_": "detkit.data.CocoDataModule", "resize": "squash"}}
    assert detkit.load(write(tmp_path / "b.safetensors", detector, recipe=squashed)).resize == "squash"


def test_weights_that_do_not_fit_are_named(tmp_path: Path, detector: torch.nn.Module) -> None:
    weights = dict(detector.state_dict())
    name = "backbone.stem.conv.conv.weight"
    weights["odd"] = weights.pop(name)[:1]
    write_detector(tmp_path / "a.safetensors", weights, METADATA)
    with pytest.raises(
        CheckpointError, match=rf"2 weights do not fit(.|\n)*{name}: absent in the file, \(\d+, 12, 3, 3\)"
    ):
        detkit.load(tmp_path / "a.safetensors")
    other = MODEL | {"backbone": MODEL["backbone"] | {"width_multiple": 0.25}}
    path = write(tmp_path / "b.safetensors", detector, recipe={"model": other, "decode": DECODE})
    with pytest.raises(CheckpointError, match=r"\d+ weights do not fit(.|\n)* and \d+ more"):
        detkit.load(path)


def test_a_file_that_lacks_something_is_named(tmp_path: Path, detector: torch.nn.Module) -> None:
    path = tmp_path / "detector.safetensors"
    write_detector(path, detector.state_dict(), {"recipe": {}, "image_hw": [64, 96]})
    with pytest.raises(CheckpointError, match=r"detector\.safetensors: has no class_names"):
        detkit.load(path)


def test_a_folder_without_a_detector_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"detector\.safetensors: no such file"):
        detkit.load(tmp_path)


@pytest.mark.parametrize("target", ["os.system", "detkit.checkpoint.file.os.system", "tests.recipe.toys.Head"])
def test_builds_only_what_is_trusted(tmp_path: Path, detector: torch.nn.Module, target: str) -> None:
    path = write(tmp_path / "a.safetensors", detector, recipe={"model": {"_target_": target}, "decode": DECODE})
    with pytest.raises(RecipeError, match=f"{target} is (in no|no class of a) trusted package"):
        detkit.load(path)


def test_detkit_offers_load_and_nothing_like_it() -> None:
    with pytest.raises(AttributeError, match="'detkit' has no attribute 'lod'"):
        _ = detkit.lod  # pyright: ignore[reportAttributeAccessIssue]


def test_weights_that_are_no_numbers_are_named(tmp_path: Path, detector: torch.nn.Module) -> None:
    """Such a detector would find nothing, without a word."""
    with torch.no_grad():
        list(detector.parameters())[-1].fill_(float("nan"))
    with pytest.raises(CheckpointError, match=r"a\.safetensors: 1 of \d+ weights hold NaN, the first is head\."):
        detkit.load(write(tmp_path / "a.safetensors", detector))


def test_a_file_is_enough_to_predict(tmp_path: Path, detector: torch.nn.Module) -> None:
    """Through the file's own decode: seven detections at most, from 0.003 on; an image of another size."""
    predictor = detkit.load(write(tmp_path / "detector.safetensors", detector))
    found = predictor.predict(np.zeros((100, 300, 3), np.uint8), score_threshold=0.003)
    assert len(found) == 7
    assert set(found.names) <= {"cat", "dog"}
    assert found.boxes[:, 2:].max() > 96  # beyond the network's input
    with pytest.raises(ValueError, match=r"score_threshold must lie in \[0\.003, 1\]; got 0\.002"):
        predictor.predict([], score_threshold=0.002)


@pytest.mark.parametrize(("ids", "expected"), [({"category_ids": [17, 90]}, (17, 90)), ({}, (1, 2))])
def test_categories_have_the_ids_of_the_data_that_was_learned(
    tmp_path: Path, detector: torch.nn.Module, ids: dict[str, Any], expected: tuple[int, int]
) -> None:
    """Numbers from 1 where a file has none inside."""
    predictor = detkit.load(write(tmp_path / "detector.safetensors", detector, **ids))
    assert predictor.category_ids == expected
    found = predictor.predict(np.zeros((100, 300, 3), np.uint8), score_threshold=0.003)[:5]
    rows = found.to_coco(1)
    assert [row["category_id"] for row in rows] == [expected[label] for label in found.labels.tolist()] != []
    assert {row["category_id"] for row in found.to_coco(1, [5, 5])} == {5}


@pytest.mark.parametrize("ids", [[17], [17, 17], [17, 1.0], [True, 2], ["1", "2"], [], "ab", None, {"17": 1, "90": 2}])
def test_categories_that_do_not_fit_are_named(tmp_path: Path, detector: torch.nn.Module, ids: Any) -> None:
    message = rf"category_ids: must be a whole number for each of 2 classes, all different; got {re.escape(repr(ids))}"
    with pytest.raises(CheckpointError, match=message):
        detkit.load(write(tmp_path / "detector.safetensors", detector, category_ids=ids))
