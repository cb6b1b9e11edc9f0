"""The proof from end to end: every format passes it, with boxes and scores; and what it catches."""

import importlib.metadata
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import detkit
from detkit.errors import ExportError
from detkit.exporting.formats.artifact import ExportSpec, make_artifact
from detkit.exporting.formats.writers import move_into_place
from detkit.exporting.options import ExportOptions
from detkit.exporting.reduced_precision import GraphChange
from detkit.exporting.run import prepare
from detkit.exporting.verify.certificate import detect_batch
from detkit.inference.exported_detector import metadata_of_export
from detkit.inference.runtimes.forms import SUFFIXES, Format
from tests.exporting import tiny
from tests.exporting.proving import checked, exported, options


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


def test_runtime_may_be_of_another_package(plain_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime for GPUs is installed as onnxruntime-gpu."""
    exported_file = prepare(ExportOptions(str(plain_file), trusted=("tests",))).exported_file
    version = importlib.metadata.version

    def of_gpu(name: str) -> str:
        if name == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", of_gpu)
    assert exported_file.runtime == f"onnxruntime {onnxruntime.__version__}"
    openvino = exported_file._replace(options=replace(exported_file.options, format="openvino"))
    assert re.fullmatch(r"openvino [\d.]+", openvino.runtime)


def test_boxes_that_are_no_numbers(tmp_path: Path, plain_file: Path, data: Path) -> None:
    """As float16 gives them where a layer overflows: the file says so, and the layer is named."""

    def overflow(model: onnx.ModelProto) -> onnx.ModelProto:
        [weight] = [one for one in model.graph.initializer if one.name == "detector.head.box_parameters.0.weight"]
        weight.CopyFrom(numpy_helper.from_array(np.full(list(weight.dims), np.inf, np.float32), weight.name))
        return model

    out = tmp_path / "model.onnx"
    export = prepare(options(plain_file, out, outputs="decoded", limit=2), [("data.root", str(data))])
    said = r"of its boxes or scores are not finite; the layers that differ most are head\.box"
    with pytest.raises(ExportError, match=said):
        checked(export, GraphChange(overflow))
    noted = metadata_of_export(out)["certificate"]
    assert noted["passed"] is False and noted["not_finite"] > 0
    assert noted["ap"]["export"]["AP"] == 0


def test_programs_of_torch_name_no_layer(tmp_path: Path, plain_file: Path, data: Path) -> None:
    """Held against another detector."""
    given = options(plain_file, tmp_path / "m.torchscript", format="torchscript", limit=2)
    other = detkit.load(plain_file, ["tests"])
    nn.init.ones_(dict(other.detector.named_parameters())["head.class_logits.0.weight"])
    with pytest.raises(ExportError, match=r"m\.torchscript: .*; format=onnx would name the layers to blame\. "):
        checked(prepare(given, [("data.root", str(data))]), None, other)


@pytest.mark.parametrize("format_name", SUFFIXES)
def test_certified_file_is_the_checked_file(tmp_path: Path, plain_file: Path, format_name: Format) -> None:
    """The certificate is added without a change of the program or the weights, and the file gives the same."""
    out = tmp_path / f"model{SUFFIXES[format_name]}"
    exported_file = prepare(options(plain_file, out, format=format_name, outputs="decoded")).exported_file
    reference = detkit.load(plain_file, ["tests"])
    artifact = make_artifact(reference.detector, reference.decode, ExportSpec(format_name, image_hw=tiny.IMAGE_HW))
    images = torch.rand(2, 3, *tiny.IMAGE_HW)
    certificate = {"passed": True, "failed": "", "said": 'of "x" & <y>, ü'}
    with exported_file.written_for_check(artifact) as (path, opened):
        before = detect_batch(opened, images)
        program = program_in(path)
        exported_file.certify(path, certificate)
    assert program_in(out) == program
    after = detect_batch(detkit.load(out, ["torch"]), images)
    assert sum(len(found.scores) for found in before) > 10
    for found, expected in zip(after, before, strict=True):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    assert metadata_of_export(out)["certificate"] == certificate
    names = {out.name, f"{out.name}.certificate.json"} | ({"model.bin"} if format_name == "openvino" else set())
    assert {file.name for file in tmp_path.iterdir()} == names


def program_in(path: Path) -> object:
    """What a runtime reads of a file, without metadata."""
    if path.suffix == ".onnx":
        return onnx.load(path).graph.SerializeToString(deterministic=True)
    if path.suffix == ".xml":
        tree = ET.parse(path)
        parts = [ET.tostring(part) for part in tree.getroot() if part.tag != "rt_info"]
        return parts, path.with_suffix(".bin").read_bytes()
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if "/extra/" not in name}


def test_moves_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both files are synced before either is moved, the one that is named comes last, and the folder is synced."""
    done: list[str] = []
    (tmp_path / "new").mkdir()
    for name in ("m.xml", "m.bin"):
        (tmp_path / "new" / name).write_text(name)
    place = "/proc/self/fd/{}"
    monkeypatch.setattr("os.fsync", lambda handle: done.append(f"sync {Path(place.format(handle)).resolve().name}"))
    move = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: (done.append(f"move {self.name}"), move(self, to))[1])
    move_into_place(tmp_path / "new" / "m.xml", tmp_path / "m.xml")
    folder = f"sync {tmp_path.name}"
    assert sorted(done[:2]) == ["sync m.bin", "sync m.xml"]
    assert done[2:] == ["move m.bin", folder, "move m.xml", folder]
    assert (tmp_path / "m.xml").read_text() == "m.xml" and not list((tmp_path / "new").iterdir())
