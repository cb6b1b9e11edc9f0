"""What ``import detkit`` offers, on a toy run of the demo set."""

import inspect
import typing
from pathlib import Path

import numpy as np
import pytest

import detkit
from detkit.api import ExportKeys
from detkit.errors import RecipeError
from detkit.exporting.options import ExportOptions

SMALL = {
    "data.image_hw": (64, 64),
    "data.batch_size": 4,
    "data.num_workers": 0,
    "wandb": "disabled",
    "trainer.max_epochs": 1,
    "trainer.limit_train_batches": 2,
    "trainer.limit_val_batches": 2,
    "trainer.accelerator": "cpu",
}


def test_names_are_listed_and_documented() -> None:
    assert {"load", "train", "evaluate", "export"} <= set(dir(detkit))
    for name in ("load", "train", "evaluate", "export"):
        function = getattr(detkit, name)
        assert callable(function)
        assert "Raises:" in (inspect.getdoc(function) or "")


def test_options_of_export_are_those_of_the_command() -> None:
    assert set(ExportKeys.__annotations__) == set(typing.get_type_hints(ExportOptions)) - {"checkpoint"}


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: detkit.train("yolo_csp_m", {"trainer.max_epohcs": 1}), r"max_epohcs.*did you mean .*max_epochs"),
        (lambda: detkit.train("yolo_cps"), r"no recipe 'yolo_cps'"),
        (lambda: detkit.export("d.safetensors", precision="int7"), r"precision.*int8.*int7"),  # type: ignore[arg-type]
        (lambda: detkit.export("d.safetensors", score_threshold=2.0), r"score_threshold.*2.0"),
    ],
)
def test_wrong_values_are_named(call: typing.Callable[[], object], match: str) -> None:
    with pytest.raises(RecipeError, match=match):
        call()


@pytest.mark.slow
def test_train_load_evaluate_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = detkit.train("yolo_csp_n", SMALL)
    assert run.folder.parent == Path("runs/yolo_csp_n")
    evaluation = detkit.evaluate(run.folder, {"data.num_workers": 0, "data.val_batch_size": 4})
    assert {f"val/{name}" for name in evaluation.numbers} == run.numbers.keys() >= {"val/AP", "val/AP50"}
    found = detkit.load(run.folder).predict(np.zeros((64, 64, 3), np.uint8))
    assert found.boxes.shape[1] == 4
    data = {"data.num_workers": 0}
    certificate = detkit.export(run.folder, data, out="m.onnx", limit=2, image_hw=(64, 64), allow_difference=True)
    assert Path("m.onnx").is_file()
    assert certificate.noted["images"] == 2
