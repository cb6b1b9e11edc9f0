"""A detector file that this format's first version wrote is opened by every later version, and finds the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch

import detkit
from detkit.checkpoint import read_detector, write_detector
from detkit.errors import CheckpointError
from detkit.inference import read_stored
from tests.helpers import ROOT

KEPT = ROOT / "tests/golden/detector_format_2.safetensors"  # yolo_csp_n, narrow, random weights, P2 and P3, 64 px


def image() -> np.ndarray:
    """Stripes of 8 pixels, red across and green down: (64, 64, 3) RGB."""
    steps = np.arange(64, dtype=np.uint8) // 8 * 36
    return np.stack(
        [np.tile(steps, (64, 1)), np.tile(steps[:, None], (1, 64)), np.full((64, 64), 128, np.uint8)], axis=2
    )


def test_kept_file_finds_what_it_found() -> None:
    expected = json.loads(KEPT.with_suffix(".json").read_text())
    found = detkit.load(KEPT).predict(image(), score_threshold=0.05, max_detections=5)
    assert found.labels.tolist() == expected["labels"]
    np.testing.assert_allclose(found.boxes, expected["boxes"], atol=0.05)
    np.testing.assert_allclose(found.scores, expected["scores"], atol=1e-3)


def test_kept_file_can_be_evaluated() -> None:
    plan = read_stored(KEPT).plan(
        [("data.root", "anywhere"), ("data.val_annotations", "a.json"), ("data.val_images", "b")]
    )
    assert plan.config["data"]["augmentation"]["mosaic_probability"] == 0.25


def rewritten(path: Path, **changes: Any) -> Path:
    weights, metadata = read_detector(KEPT)
    write_detector(path, weights, {**metadata, **changes})
    return path


def test_format_1_held_the_augmentation_flat(tmp_path: Path) -> None:
    recipe = read_stored(KEPT).recipe
    flat = {"mosaic_probability": 0.25, "close_mosaic_epochs": 3}
    data = {key: value for key, value in recipe["data"].items() if key != "augmentation"} | flat
    opened = read_stored(rewritten(tmp_path / "old.safetensors", recipe={**recipe, "data": data}))
    assert opened.recipe["data"]["augmentation"] == {"_target_": "detkit.data.augment.Augmentation", **flat}
    assert not flat.keys() & opened.recipe["data"].keys()


def test_a_later_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detkit.checkpoint.detector.FORMAT", 9)
    path = rewritten(tmp_path / "new.safetensors")
    assert "9" in safetensors.safe_open(path, framework="pt").metadata().values()
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"new.safetensors: has detector_format 9; .* reads 1 to 2"):
        read_detector(path)
