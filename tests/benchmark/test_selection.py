"""What is going to be measured: every file by its own name, and what cannot be is said before anything is."""

import json
from pathlib import Path
from typing import Any

import pytest

from detkit.benchmark.options import BenchmarkOptions
from detkit.benchmark.selection import BenchmarkPlan, make_plan
from detkit.errors import DataError, RecipeError
from detkit.inference.runtimes.forms import Outputs
from tests.helpers.full_images import CATEGORIES, write_split
from tests.helpers.tiny_detectors import write_middle, write_tiny_detector

SCORES = {"dog": 0.9, "cat": 0.5}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_detector(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    write_split(root := tmp_path_factory.mktemp("data"), "val")
    return root


def plan(checkpoint: Path, out: Path, data: Path | None = None, **asked: Any) -> BenchmarkPlan:
    options = BenchmarkOptions(str(checkpoint), **{"runtimes": ("eager",), "out": str(out / "out"), **asked})
    return make_plan(options, [("data.root", str(data))] if data else [], out)


def test_files_of_one_name_have_two_titles(checkpoint: Path, tmp_path: Path) -> None:
    """And one file has one row, however it is written."""
    for name in ("a", "b"):
        write_middle(checkpoint, tmp_path / name, "squash", SCORES)
    (tmp_path / "a" / "other.onnx").write_bytes((tmp_path / "a" / "model.onnx").read_bytes())
    also = tuple(f"{tmp_path}/{name}.onnx" for name in ("a/model", "b/model", "a/other", "a/../b/model"))
    found = plan(checkpoint, tmp_path, also=also).candidates
    assert [one.title for one in found] == ["torch eager", "a/model.onnx", "b/model.onnx", "other.onnx"]
    assert [one.name for one in found] == ["eager", *also[:3]]


@pytest.mark.parametrize(
    ("outputs", "inside"),
    [
        ("raw", ""),
        ("decoded", "decoding is in the network"),
        ("detections", "decoding and the choice of boxes are in the network, from score 0.001"),
    ],
)
def test_what_a_file_does_inside(checkpoint: Path, tmp_path: Path, outputs: Outputs, inside: str) -> None:
    """The decoder of the recipe, which the export took over, begins at 0.001."""
    file = write_middle(checkpoint, tmp_path / "a", "squash", SCORES, outputs)
    found = plan(checkpoint, tmp_path, also=(str(file),), runtimes=("eager", "onnx")).candidates
    assert [one.inside for one in found] == ["", "decoding is in the network", inside]


def test_classes_that_the_data_has_and_a_file_does_not(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    other = write_middle(checkpoint, tmp_path / "a", "squash", {"dog": 0.9, "bird": 0.5})
    with pytest.raises(DataError, match=rf"^{other}: 1 of the 2 classes of the data are unknown to the model: cat; it"):
        plan(checkpoint, tmp_path, data, also=(str(other),))
    assert not (tmp_path / "out").exists()


def test_a_split_without_images(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "val").mkdir(parents=True)
    (tmp_path / "data" / "annotations").mkdir()
    empty = {"images": [], "annotations": [], "categories": CATEGORIES}
    (tmp_path / "data" / "annotations" / "instances_val.json").write_text(json.dumps(empty))
    with pytest.raises(DataError, match=r"instances_val\.json cannot be used:(.|\n)*it lists no images"):
        plan(checkpoint, tmp_path, tmp_path / "data")


def test_files_that_time_is_measured_with(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    """All five of the split; of what is drawn sixteen, or as many as the largest batch has."""
    assert [file.name for file in plan(checkpoint, tmp_path / "a", data).files] == [f"{row}.png" for row in range(5)]
    for name, batch_size, number in (("b", (1, 8), 16), ("c", (18,), 18)):
        (tmp_path / name).mkdir()
        files = plan(checkpoint, tmp_path / name, batch_size=batch_size).files
        assert len({file.read_bytes() for file in files}) == number


def test_what_is_not_installed_is_left_out(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detkit.benchmark.engines.is_installed", lambda name: name != "openvino")
    said = 'left out: OpenVINO: openvino is not installed: in the clone, pip install -e ".[export]"'
    assert plan(checkpoint, tmp_path, runtimes=("eager", "openvino")).left_out == [said]
    with pytest.raises(
        RecipeError, match=r'^runtimes=openvino: none is installed: in the clone, pip install -e "\.\[ex'
    ):
        plan(checkpoint, tmp_path, runtimes=("openvino",))


@pytest.mark.parametrize(
    ("asked", "measured"),
    [
        ({}, [(64, 64)]),
        ({"image_hw": ("64", "96")}, [(64, 64)]),
        ({"image_hw": ("64", "96"), "ap_sizes": "all"}, [(64, 64), (96, 96)]),
        ({"image_hw": ("96", "128x96")}, [(96, 96), (128, 96)]),  # none is that of the training: better than no AP
    ],
)
def test_sizes_of_ap(
    checkpoint: Path, data: Path, tmp_path: Path, asked: dict[str, Any], measured: list[tuple[int, int]]
) -> None:
    """In one setting of each size."""
    found = plan(checkpoint, tmp_path, data, **asked)
    assert [setting.image_hw for setting in found.settings if found.wants_accuracy(setting)] == measured
