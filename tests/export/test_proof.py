"""The proof from end to end: every format passes it, with boxes and scores; and what it catches."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from torch import nn

import detkit
from detkit.errors import ExportError
from detkit.export.precision import Change
from detkit.export.run import prepare
from detkit.inference.exported import metadata_of_export
from detkit.inference.forms import SUFFIXES, Format
from tests.export.proving import exported, options, proven


@pytest.mark.parametrize("format_name", SUFFIXES)
def test_every_format_is_the_same_detector(tmp_path: Path, plain_file: Path, data: Path, format_name: Format) -> None:
    """By its AP, and by boxes and scores. What was measured: boxes 2e-5 pixels apart, scores 5e-7."""
    out = tmp_path / f"model{SUFFIXES[format_name]}"
    certificate, _ = exported(plain_file, out, data, format=format_name)
    noted = certificate.noted
    assert certificate.passed and metadata_of_export(out)["certificate"]["passed"] is True
    assert noted["ap"]["torch"]["AP"] == pytest.approx(noted["ap"]["export"]["AP"], abs=1e-3)
    for found in (noted["detections"], noted["batch_1"]):
        assert found["matched"] > 20 and found["unmatched"] == 0
        assert found["largest_box_px"] < 1e-3 and found["largest_score"] < 1e-5 and found["mean_iou_loss"] < 1e-5
    assert noted["detections"]["matched"] > 50 and noted["not_finite"] == 0


def test_boxes_that_are_no_numbers(tmp_path: Path, plain_file: Path, data: Path) -> None:
    """As float16 gives them where a layer overflows: the file says so, and the layer is named."""

    def overflow(model: onnx.ModelProto) -> onnx.ModelProto:
        [weight] = [one for one in model.graph.initializer if one.name == "detector.head.box_parameters.0.weight"]
        weight.CopyFrom(numpy_helper.from_array(np.full(list(weight.dims), np.inf, np.float32), weight.name))
        return model

    out = tmp_path / "model.onnx"
    export = prepare(options(plain_file, out, outputs="decoded", limit=2), [("data.root", str(data))])
    said = r"of the boxes or scores that it finds are no finite numbers; the layers that differ most are head\.box"
    with pytest.raises(ExportError, match=said):
        proven(export, Change(overflow))
    noted = metadata_of_export(out)["certificate"]
    assert noted["passed"] is False and noted["not_finite"] > 0
    assert noted["ap"]["export"]["AP"] == 0


def test_programs_of_torch_name_no_layer(tmp_path: Path, plain_file: Path, data: Path) -> None:
    """Held against another detector."""
    given = options(plain_file, tmp_path / "m.torchscript", format="torchscript", limit=2)
    other = detkit.load(plain_file, ["tests"])
    nn.init.ones_(dict(other.detector.named_parameters())["head.class_logits.0.weight"])
    with pytest.raises(ExportError, match=r"m\.torchscript: .*; format=onnx would name the layers to blame\. "):
        proven(prepare(given, [("data.root", str(data))]), None, other)
