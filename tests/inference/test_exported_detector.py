"""Exported files of strangers: nothing in them runs, and what is wrong in them is said."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import parser

import detkit
from detkit.checkpoint import write_detector
from detkit.errors import CheckpointError, RecipeError
from detkit.exporting.formats.writers import write_openvino, write_torchscript
from detkit.inference.exported_detector import ExportedDecode
from detkit.inference.predictor import predictor_of
from detkit.inference.stored_detector import StoredDetector, read_stored
from tests.helpers.small_onnx import METADATA, NET, RECIPE, SIGNATURE, write

# All boxes are the image's corner, all scores its mean.


@pytest.mark.kernels
def test_what_a_file_says_is_what_it_is(tmp_path: Path) -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:24] = 255  # sums of zeros and ones are exact, in whatever order a kernel adds 3,072 of them
    write_openvino(tmp_path / "a.xml", parser.parse_model(NET), METADATA)
    for path in (write(tmp_path / "a.onnx"), tmp_path / "a.xml"):
        found = detkit.load(path).predict(picture)
        assert (found.names, found.boxes.tolist()) == (["cat"], [[0, 0, 16, 8]])
        assert found.scores.tolist() == pytest.approx([0.75])
    with pytest.raises(
        ValueError, match=r"takes images of 32 x 32 pixels alone; got 64 x 32\. An .*all multiples of 32"
    ):
        detkit.load(path).detector(torch.zeros(1, 3, 64, 32))
    of_any_size = write(tmp_path / "b.onnx", signature={**SIGNATURE, "dynamic": "size"})  # says it, and is not
    with pytest.raises(CheckpointError, match=r"b\.onnx: fails on images of \(1, 3, 64, 64\): .*INVALID_ARGUMENT"):
        detkit.load(of_any_size).detector(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"b\.onnx: .* must be multiples of 32, .*; got \[64, 40\]"):
        detkit.load(of_any_size).detector(torch.zeros(1, 3, 64, 40))


def test_weights_of_another_export_are_not_run(tmp_path: Path) -> None:
    """OpenVINO has two files, of which the .bin is moved first."""
    for name, net in (("a", NET), ("b", NET.replace("16, 8}", "16, 9}"))):
        write_openvino(tmp_path / f"{name}.xml", parser.parse_model(net), METADATA)
    detkit.load(tmp_path / "a.xml").detector(torch.zeros(1, 3, 32, 32))
    (tmp_path / "b.bin").rename(tmp_path / "a.bin")
    with pytest.raises(CheckpointError, match=r"a\.xml: a\.bin holds weights of another export; export again"):
        detkit.load(tmp_path / "a.xml").detector(torch.zeros(1, 3, 32, 32))


def test_failed_certificate_is_told_at_each_use(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    detkit.load(write(tmp_path / "good.onnx", certificate={"passed": True, "failed": ""}))
    assert not caplog.messages
    detkit.load(write(tmp_path / "bad.onnx", certificate={"passed": False, "failed": "AP 0.1 differs"}))
    assert len(caplog.messages) == 1
    assert "bad.onnx: by its certificate it differs from the detector that it was made from: AP 0.1" in caplog.text


def test_int8_of_another_kind_of_cpu_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detkit.inference.exported_detector.instruction_set", lambda: "AVX2")
    for certificate, said in (
        ({"precision": "int8", "instruction_set": "AVX2"}, None),
        ({"precision": "fp32", "instruction_set": "AVX-512 with VNNI"}, None),  # float differs by rounding anywhere
        (
            {"precision": "int8", "instruction_set": "AVX-512 with VNNI"},
            "with AVX-512 with VNNI, and this CPU has AVX2: .*rounding only",
        ),
        (
            {"precision": "int8"},
            "with unknown instructions, and this CPU has AVX2: .*weights of 8 bits .*export it again",
        ),
    ):
        caplog.clear()
        path = write(tmp_path / "a.onnx", certificate=certificate)
        read_stored(path)  # as evaluate.py does
        detkit.load(path)
        assert len(caplog.messages) == (2 if said else 0)
        assert all(re.search(f"a.onnx: .*int8 .*{said}", message) for message in caplog.messages)


@pytest.mark.parametrize("target", ["os.system", "detkit.checkpoint.file.os.system", "tests.recipe.toys.Head"])
def test_builds_only_what_is_trusted(tmp_path: Path, target: str) -> None:
    recipe = {**RECIPE, "decode": {"_target_": target, "command": "false"}}
    with pytest.raises(RecipeError, match=f"{target} is (in no|no class of a) trusted package"):
        detkit.load(write(tmp_path / "a.onnx", recipe=recipe))


class Nothing(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images[:, 0, :1, :4], images[:, 0, :1, :1]


def test_programs_of_torch_are_trusted_or_not_opened(tmp_path: Path) -> None:
    program = torch.export.export(Nothing(), (torch.zeros(1, 3, 32, 32),))
    texts = {"detkit.json": json.dumps({key: json.dumps(value) for key, value in METADATA.items()})}
    torch.export.save(program, tmp_path / "a.pt2", extra_files=texts)
    (tmp_path / "a.pt2").rename(tmp_path / "b.pt2")
    with pytest.raises(
        CheckpointError, match=r"b\.pt2: a \.pt2 file may run code .*; set trusted=torch if you trust b"
    ):
        detkit.load(tmp_path / "b.pt2")
    assert detkit.load(tmp_path / "b.pt2", ["torch"]).class_names == ("cat",)
    with pytest.warns(FutureWarning):
        traced = torch.jit.trace(Nothing(), (torch.zeros(1, 3, 32, 32),))
    write_torchscript(tmp_path / "a.torchscript", traced, METADATA)  # pyright: ignore[reportArgumentType]
    with pytest.raises(CheckpointError, match=r"a \.torchscript file may run code"):
        detkit.load(tmp_path / "a.torchscript")


def test_detector_file_has_no_program_of_torch_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's detector file beside a program: its recipe names the program, under whatever name."""
    with pytest.warns(FutureWarning):
        traced = torch.jit.trace(Nothing(), (torch.zeros(1, 3, 32, 32),))
    write_torchscript(tmp_path / "w.torchscript", traced, METADATA)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was opened"))
    refused = r"a \.torchscript file may run code .*trusted=torch if you trust w\.torchscript"
    for name in (
        "detkit.inference.exported_detector.ExportedModel",
        "detkit.exporting.reduced_precision.ExportedModel",
    ):
        program = {"_target_": name, "path": str(tmp_path / "w.torchscript")}
        recipe = {**RECIPE, "model": program}
        write_detector(tmp_path / "a.safetensors", {}, {**METADATA, "recipe": recipe})
        with pytest.raises(CheckpointError, match=r"a\.safetensors: holds no weights"):
            detkit.load(tmp_path / "a.safetensors")
        predictor = predictor_of(StoredDetector({}, recipe, ("cat",), (32, 32), tmp_path / "a.safetensors"))
        with pytest.raises(CheckpointError, match=refused):
            predictor.predict(np.zeros((32, 32, 3), np.uint8))
        decode = detkit.load(write(tmp_path / "b.onnx", recipe={**RECIPE, "decode": program})).decode
        assert isinstance(decode, ExportedDecode)
        with pytest.raises(CheckpointError, match=refused):
            decode.decode(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"signature": None}, "no valid signature"),
        ({"signature": {**SIGNATURE, "image_hw": 32}}, "no valid signature"),
        ({"signature": {**SIGNATURE, "largest_stride": "a"}}, "no valid signature"),
        ({"signature": {**SIGNATURE, "more": 1}}, "no valid signature"),
        ({"recipe": [1]}, "has no recipe inside that names a decode"),
        ({"recipe": {"model": {}}}, "has no recipe inside that names a decode"),
        ({"class_names": "cat"}, "class_names: must be a list of text"),
        ({"image_hw": [32]}, r"image_hw: must be \[height, width\]; got \[32\]"),
        ({"image_hw": [32, 10**9]}, "image_hw: a file may ask for at most 16384; got 1000000000"),
    ],
)
def test_metadata_of_a_wrong_kind(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=rf"a\.onnx: .*{said}"):
        detkit.load(write(tmp_path / "a.onnx", **changed))


def test_metadata_that_is_missing_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    onnx.save(parser.parse_model(NET), path)
    with pytest.raises(CheckpointError, match=r"a\.onnx: was not exported by detkit: it has no class names"):
        detkit.load(path)
    model = onnx.load(write(path))
    next(entry for entry in model.metadata_props if entry.key == "recipe").value = "{cut"
    onnx.save(model, path)
    with pytest.raises(CheckpointError, match=r"a\.onnx: its metadata is damaged"):
        detkit.load(path)
    write_openvino(tmp_path / "b.xml", model, {})
    with pytest.raises(CheckpointError, match=r"b\.xml: was not exported by detkit"):
        detkit.load(tmp_path / "b.xml")
    (tmp_path / "b.bin").unlink()
    with pytest.raises(CheckpointError, match=r"b\.xml: has no b\.bin beside it, which holds its weights"):
        detkit.load(tmp_path / "b.xml")


def test_runtime_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_openvino(tmp_path / "a.xml", parser.parse_model(NET), METADATA)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(CheckpointError, match=r'a\.xml: needs OpenVINO: in the clone, pip install -e "\.\[export\]"'):
        detkit.load(tmp_path / "a.xml")


@pytest.mark.parametrize("suffix", ["onnx", "xml", "pt2", "torchscript"])
def test_file_that_is_none(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    with pytest.raises(CheckpointError, match=rf"a\.{suffix}: no such file"):
        detkit.load(path)
    path.write_text("hello world")
    path.with_suffix(".bin").write_text("hello world")
    with pytest.raises(CheckpointError, match=rf"a\.{suffix}: is no (ONNX file|OpenVINO file|archive of torch)"):
        detkit.load(path, ["torch"])


def test_outputs_of_no_known_kind() -> None:
    with pytest.raises(ValueError, match="outputs must be raw, decoded, detections; got 'boxes'"):
        ExportedDecode(None, "boxes")  # pyright: ignore[reportArgumentType]


def test_a_decoder_of_one_step_cannot_go_on_from_decoded_outputs() -> None:
    decode = ExportedDecode(len, "decoded")  # pyright: ignore[reportArgumentType]
    with pytest.raises(CheckpointError, match=r"outputs=decoded: .* has no select"):
        decode([])


def test_a_decoder_without_a_threshold_is_left_as_it_is() -> None:
    decode = ExportedDecode(len, "raw")  # pyright: ignore[reportArgumentType]
    assert decode.score_threshold == 0
    assert decode.with_threshold(0.5)([1, 2]) == 2
