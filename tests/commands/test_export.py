"""scripts/export.py: a file that evaluate.py and predict.py take as they take the detector's; codes for what fails."""

import json
import re
from pathlib import Path

import onnx
import pytest

from tests.exporting import tiny
from tests.helpers.warm_scripts import Done, run_script

TRUSTED = "trusted=tests"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with a detector, and a data set that it is good at."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny.config_of(tiny.PLAIN, folder / "data")
    file = tiny.write(folder / "detector.safetensors", config, tiny.decisive(tiny.PLAIN))
    tiny.write_truth(folder / "data", file, (("val", 5),))
    return folder


@pytest.fixture(scope="module")
def done(run: Path) -> Done:
    return run_script(["scripts/export.py", f"checkpoint={run}", TRUSTED, "batch_size=2"])


def test_export_of_a_run(run: Path, done: Done) -> None:
    """On the data of its own recipe, to model.onnx in its folder; no bar where there is no terminal."""
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert "\x1b" not in done.stdout + done.stderr
    noted = json.loads((run / "model.onnx.certificate.json").read_text())
    assert noted["passed"] and noted["images"] == 5
    assert f"{run / 'model.onnx'}: 0.2 MB, fp32, 96 x 64 float32 images to boxes, scores, labels" in done.stdout
    assert re.search(rf"AP +{noted['ap']['torch']['AP']:.4f} +{noted['ap']['export']['AP']:.4f} ", done.stdout)
    assert "checked on 5 images of the val split" in done.stdout


def test_evaluate_and_predict_take_the_export(run: Path, done: Done, tmp_path: Path) -> None:
    assert done.returncode == 0
    model = run / "model.onnx"
    evaluated = run_script(["scripts/evaluate.py", f"checkpoint={model}", "trainer.accelerator=cpu"])
    assert evaluated.returncode == 0, evaluated.stderr
    ap = json.loads((run / "model.onnx.certificate.json").read_text())["ap"]["export"]["AP"]
    assert re.search(rf"^AP +{ap:.4f} ", evaluated.stdout, flags=re.MULTILINE)
    found = {}
    for name, checkpoint in (("torch", run), ("onnx", model)):
        words = [f"checkpoint={checkpoint}", f"source={run / 'data' / 'val'}", f"out={tmp_path / name}", TRUSTED]
        predicted = run_script(["scripts/predict.py", *words, "save=coco", "score_threshold=0.2", "device=cpu"])
        assert predicted.returncode == 0, predicted.stderr
        found[name] = json.loads((tmp_path / name / "predictions.json").read_text())
    assert len(str(found["onnx"])) > 200
    ours, theirs = (re.findall(r"'score': ([\d.]+)", str(found[name])) for name in ("torch", "onnx"))
    assert [float(score) for score in ours] == pytest.approx([float(score) for score in theirs], abs=1e-4)
    assert len(ours) > 5


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["format=torchscript", "outputs=detections"], 69, "outputs=detections with format=torchscript: torch cannot"),
        (["format=torchscript", "precision=fp16"], 78, "fp16 is for format=onnx and openvino; got format=torchscript"),
        (["fromat=onnx"], 78, "fromat: no such key; did you mean 'format'?"),
        (["image_hw=100"], 78, r"image_hw: must be multiples of 8, .*; got \[100, 100\]"),
    ],
)
def test_what_fails_is_one_line(run: Path, words: list[str], code: int, said: str) -> None:
    failed = run_script(["scripts/export.py", f"checkpoint={run}", TRUSTED, *words])
    assert failed.returncode == code
    assert re.search(said, failed.stderr)
    assert "Traceback" not in failed.stderr


def test_stranger_cannot_have_classes_built(run: Path) -> None:
    refused = run_script(["scripts/export.py", f"checkpoint={run}"])
    assert refused.returncode == 78
    assert "tests.exporting.tiny.Plain is in no trusted package" in refused.stderr


def test_one_file_holds_all(run: Path, done: Done) -> None:
    assert done.returncode == 0
    model = onnx.load(run / "model.onnx", load_external_data=False)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert {"recipe", "class_names", "certificate", "signature", "made_from"} <= {e.key for e in model.metadata_props}
