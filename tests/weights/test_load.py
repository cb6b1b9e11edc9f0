"""Files of weights: read as data only, and told apart by what they hold."""

import contextlib
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.errors import CheckpointError
from detkit.weights import load_weights
from detkit.weights.files import read_state_dict
from tests.helpers.yolox_files import detector_of, official_weights


@pytest.mark.parametrize("wrap", [dict, lambda weights: {"model": weights, "start_epoch": 300}], ids=["bare", "model"])
def test_an_official_file_is_recognised(tmp_path: Path, wrap: Any) -> None:
    path, detector = tmp_path / "yolox_nano.pth", detector_of("nano")
    weights = official_weights("nano")
    torch.save(wrap(weights), path)
    assert f"{path}: loaded 538 of 538 tensors\n" in str(load_weights(path, detector))
    assert torch.equal(detector.state_dict()["head.objectness.2.bias"], weights["head.obj_preds.2.bias"])


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"a": torch.ones(1)}, "date": "2023"},
        {"ema": {"module": {"a": torch.ones(1)}, "updates": 9}},
        {"model": {"a": torch.zeros(1)}, "ema": {"module": {"a": torch.ones(1)}, "updates": 9}, "last_epoch": 71},
        {"state_dict": {"a": torch.zeros(1)}, "ema": {"a": torch.ones(1)}},
    ],
    ids=["model", "averaged", "both", "state_dict"],
)
def test_weights_are_found_in_a_checkpoint(tmp_path: Path, content: Any) -> None:
    """Averaged ones rather than those that training goes on with."""
    torch.save(content, tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth") == {"a": torch.ones(1)}


class RunsCode:
    """What an attacker would put into a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    torch.save({"model": official_weights("nano"), "best_ap": RunsCode(tmp_path / "made")}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth: refused.*store only its state_dict"):
        load_weights(tmp_path / "a.pth", detector_of("nano"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"encoder.weight": torch.zeros(1)}, r"another network: 235 tensors of the backbone are missing"),
        ([torch.zeros(1)], "contains no state_dict, neither at its top nor under 'ema', 'state_dict', 'model'"),
        ({}, "contains no state_dict, neither"),
        ({"a": torch.zeros(1), "epoch": 3}, "contains no state_dict: epoch are no tensors"),
        ({"\x1b[2J": 3, 7: torch.zeros(1)}, r"contains no state_dict: '\\x1b\[2J', a int are no tensors"),
    ],
)
def test_other_contents_are_named(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=message):
        load_weights(tmp_path / "w.pth", detector_of("nano"))


def test_no_file_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"w\.pth: no such file; weights are not downloaded"):
        load_weights(tmp_path / "w.pth", detector_of("nano"))
    with pytest.raises(CheckpointError, match=r"detector\.safetensors: no such file"):
        load_weights(tmp_path, detector_of("nano"))
    (tmp_path / "yolox_s.pth").touch()
    with pytest.raises(CheckpointError, match=r"yolox_s\.pht: no such file; did you mean '.*yolox_s\.pth'\?"):
        load_weights(tmp_path / "yolox_s.pht", detector_of("nano"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_cut_or_changed_file_raises_nothing_else(tmp_path: Path, is_zip: bool) -> None:
    """A flipped byte may go unnoticed by torch; what it notices has the file's name."""
    whole, path = tmp_path / "whole.pth", tmp_path / "w.pth"
    torch.save({"layer.weight": torch.zeros(9)}, whole, _use_new_zipfile_serialization=is_zip)
    content, rng = whole.read_bytes(), random.Random(0)
    for length in range(0, len(content), 11):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"w\.pth: "):
            read_state_dict(path)
    for _ in range(200):
        changed = bytearray(content)
        changed[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(changed)
        with contextlib.suppress(CheckpointError):
            read_state_dict(path)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\x89PNG\r\n", b"{}"], ids=["html", "png", "json"])
def test_another_kind_of_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"w\.pth: "):
        load_weights(tmp_path / "w.pth", detector_of("nano"))
