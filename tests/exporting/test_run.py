"""An export with its certificate, from the detector file to the file that is used; and everything that goes wrong."""

import json
import logging
import re
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper, parser
from torch import Tensor, nn

import detkit
from detkit.checkpoint import write_detector
from detkit.errors import CheckpointError, DataError, ExportError, RecipeError, StorageError
from detkit.exporting.exported_file import sha256_of
from detkit.exporting.formats.artifact import Artifact, ExportSpec, make_artifact
from detkit.exporting.formats.writers import write_onnx, write_openvino
from detkit.exporting.int8.layers_to_blame import layers_to_blame, worst_layers
from detkit.exporting.int8.quantize import quantize
from detkit.exporting.options import ExportOptions
from detkit.exporting.reduced_precision import GraphChange
from detkit.exporting.run import prepare
from detkit.exporting.verify.check_images import images_for, of_images
from detkit.inference.device import instruction_set
from detkit.inference.exported_detector import metadata_of_export
from detkit.inference.runtimes.signature import Signature
from detkit.types import GroundTruth
from tests.exporting import tiny
from tests.exporting.proving import checked, exported, noise_in, options


@pytest.fixture(scope="module")
def onnx_file(folder: Path, plain_file: Path, data: Path) -> Path:
    """With a certificate on the data."""
    out = folder / "proven" / "model.onnx"
    _, said = exported(plain_file, out, data, score_threshold=0.02, max_detections=40)
    (folder / "said.txt").write_text(said)
    return out


def test_certificate_lies_in_the_file_and_beside_it(folder: Path, onnx_file: Path) -> None:
    noted = metadata_of_export(onnx_file)["certificate"]
    assert noted == json.loads(onnx_file.with_name("model.onnx.certificate.json").read_text())
    assert sorted(path.name for path in onnx_file.parent.iterdir()) == ["model.onnx", "model.onnx.certificate.json"]
    assert noted["passed"] is True and noted["failed"] == ""
    assert noted["ap"]["torch"] == noted["ap"]["export"]
    assert noted["ap"]["torch"]["AP"] > 0.5  # the truth is what it finds, as far as it scores
    assert len(noted["ap"]["torch"]) == 12
    assert noted["images"] == 7 and "instances_val.json" in noted["checked_on"]
    assert noted["detections"]["matched"] > 50 and noted["detections"]["unmatched"] == 0
    assert noted["detections"]["largest_box_px"] < 1e-3
    assert set(noted["latency"]) == {"1", "3"}
    assert noted["latency"]["1"]["export"]["rounds"] >= 5
    assert noted["threads"] == torch.get_num_threads()
    assert noted["instruction_set"] == instruction_set()
    assert noted["runtime"].startswith("onnxruntime 1.")
    said = (folder / "said.txt").read_text()
    assert f"{noted['ap']['torch']['AP']:.4f}   {noted['ap']['export']['AP']:.4f}   0.000 points apart" in said
    assert "to boxes, scores, labels, counts, dynamic=batch" in said
    assert re.search(rf"checked on 7 images .*; {instruction_set()}$", said, re.MULTILINE)


def test_file_says_all_that_the_detector_file_says(onnx_file: Path, plain_file: Path) -> None:
    noted, reference = metadata_of_export(onnx_file), detkit.load(plain_file, ["tests"])
    assert noted["class_names"] == list(tiny.CLASS_NAMES)
    assert noted["detkit_version"] == detkit.__version__
    weights = {"name": "plain.safetensors", "sha256": sha256_of(reference.detector.state_dict())}
    assert noted["made_from"] == {"ap": 0.5, "data_fingerprint": "abc", **weights}
    assert not {"ap", "data_fingerprint"} & noted.keys()  # they are of the training, not of this file
    decode = noted["recipe"]["decode"]["decode"]
    assert (decode["score_threshold"], decode["max_detections"], decode["iou_threshold"]) == (0.02, 40, 0.7)
    found = detkit.load(onnx_file, ["tests"])
    kept = found.decode(found.detector(torch.rand(1, 3, *tiny.IMAGE_HW)))[0]
    assert len(kept.scores) <= 40 and kept.scores.min() > 0.02


def test_layer_that_was_changed_is_named(tmp_path: Path, plain_file: Path, data: Path) -> None:
    """The file is there, and says that it failed."""
    out = tmp_path / "model.onnx"
    spoilt = "backbone.layers.1.conv"
    with pytest.raises(
        ExportError, match=r"model\.onnx: its AP 0\.\d+ differs by \d+\.\d+ points from 0\.\d+"
    ) as error:
        checked(prepare(options(plain_file, out), [("data.root", str(data))]), GraphChange(noise_in(spoilt)))
    assert f"more than tolerance=0.1; the layers that differ most are {spoilt} (" in str(error.value)
    assert str(error.value).count("%") == 1  # no other layer is blamed
    noted = metadata_of_export(out)["certificate"]
    remedy = "The file is there, and its certificate says so; allow_difference=true accepts it"
    assert noted["passed"] is False and f"{out}: {noted['failed']}. {remedy}" == str(error.value)
    assert noted["ap"]["export"]["AP"] < noted["ap"]["torch"]["AP"] - 0.01
    taken = prepare(options(plain_file, out, allow_difference=True, limit=2), [("data.root", str(data))])
    change = GraphChange(noise_in(spoilt))
    assert not checked(taken, change).passed
    assert metadata_of_export(out)["certificate"]["images"] == 2
    assert change.after is not None
    images = torch.rand(2, 3, *tiny.IMAGE_HW)
    int8 = quantize(change.after, [images.numpy()], lambda _: True).model
    said = layers_to_blame(
        taken.reference, taken.spec, int8, change.after, images
    )  # of int8, beside the graph before it
    assert re.fullmatch(r"the layers that differ most are (\S+ \(\d[\d.]* %\)|, )+", said)
    assert "backbone.layers." in said


def test_no_layer_is_blamed_for_rounding() -> None:
    assert worst_layers([("a", 1e-6)]) == "no layer differs on its own; the arithmetic between them or the runtime does"
    assert worst_layers([("a", 0.5), ("b", 0.02), ("c", 1e-6)]) == "the layers that differ most are a (50 %), b (2 %)"


def test_without_data_it_looks_at_drawings(tmp_path: Path, plain_file: Path) -> None:
    """And at another size; half precision is near enough. The bytes of an image go in."""
    out = tmp_path / "deep" / "model.onnx"
    more: dict[str, Any] = {"input": "uint8", "dynamic": "size", "precision": "fp16", "outputs": "decoded"}
    certificate, said = exported(plain_file, out, None, tolerance=1.0, **more)
    noted = certificate.noted
    assert certificate.passed and noted["ap"] is None and noted["split_fingerprint"] is None
    assert (noted["checked_on"], noted["precision"]) == ("16 drawn images", "fp16")
    assert noted["second_size"]["matched"] > 0
    assert 1e-5 < noted["detections"]["largest_score"] < 0.02  # of float16
    assert "a weaker check: without a data set there is no AP; data.root=FOLDER measures it" in said
    stored = {tensor.data_type for tensor in onnx.load(out).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in stored


def test_int8_is_held_against_float32(tmp_path: Path, plain_file: Path, data: Path) -> None:
    certificate, _ = exported(
        plain_file, tmp_path / "m.onnx", data, precision="int8", calibration=3, tolerance=100, format="onnx"
    )
    noted = certificate.noted
    assert noted["calibration_images"] == 3
    assert noted["detections"]["largest_score"] > 1e-3
    assert noted["tolerance"] == 100
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}


def test_int8_needs_images(tmp_path: Path, plain_file: Path) -> None:
    with pytest.raises(
        ExportError, match=r"int8 needs training images .*the data of the recipe \(nowhere\) does not exist"
    ):
        exported(plain_file, tmp_path / "m.onnx", None, precision="int8")


@pytest.mark.parametrize(
    ("data_overrides", "split", "error", "said"),
    [
        ([("data.root", "/missing_data")], "val", DataError, "/missing_data"),
        ([("data.rooot", "/missing_data")], "val", RecipeError, "no argument 'rooot'; did you mean 'root'"),
        ([("data.num_workers", 0)], "val", DataError, "nowhere"),
        ([], "test", DataError, "nowhere"),
    ],
)
def test_data_that_is_not_there_is_named(
    tmp_path: Path, plain_file: Path, data_overrides: list[Any], split: Any, error: type[Exception], said: str
) -> None:
    """Who asks for data is never given drawings instead."""
    export = prepare(options(plain_file, tmp_path / "m.pt2", format="torch_export", split=split), data_overrides)
    with pytest.raises(error, match=said), images_for(export.exported_file.stored, export.options, data_overrides):
        pass


def test_only_detectors(tmp_path: Path) -> None:
    config = {
        "model": {
            "_target_": "detkit.models.Classifier",
            "backbone": {**tiny.BACKBONE, "out_levels": ["P5"]},
            "neck": {"_target_": "detkit.models.necks.GlobalAveragePool", "_partial_": True},
            "head": {"_target_": "detkit.models.heads.LinearHead", "_partial_": True, "num_classes": 2},
        },
        "decode": {"_target_": "detkit.decode.ClassDecode"},
    }
    file = tiny.write(tmp_path / "classes.safetensors", config, tiny.decisive(config["model"]))
    with pytest.raises(ExportError, match="only detectors can be exported; this checkpoint gives RankedClasses"):
        prepare(ExportOptions(str(file)))


def test_setting_that_the_decoder_has_not(rtdetr_file: Path) -> None:
    with pytest.raises(RecipeError, match="iou_threshold"):
        prepare(ExportOptions(str(rtdetr_file), iou_threshold=0.5))


@pytest.mark.parametrize(
    ("image_hw", "said"),
    [((64, 100), r"multiples of 8, .*got \[64, 100\], the nearest size is \[64, 96\]"), ((0, 64), r"got \[0, 64\]")],
)
def test_size_fits_the_stride(tmp_path: Path, plain_file: Path, image_hw: tuple[int, int], said: str) -> None:
    with pytest.raises(RecipeError, match=f"image_hw: must be {said}" if "multiples" in said else said):
        prepare(options(plain_file, tmp_path / "m.onnx", image_hw=image_hw))


def test_export_of_an_export(onnx_file: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.onnx: is exported already; give the detector file"):
        prepare(ExportOptions(str(onnx_file)))


def test_what_torch_formats_cannot(plain_file: Path, tmp_path: Path) -> None:
    for more, said in (
        ({"format": "torch_export", "outputs": "detections"}, "outputs=detections with format=torch_export"),
        ({"format": "torchscript", "dynamic": "size"}, "dynamic=size with format=torchscript: a trace holds"),
    ):
        with pytest.raises(ExportError, match=said):
            exported(plain_file, tmp_path / "m", None, **more)


def test_place_that_cannot_be_written(plain_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/m\.pt2: cannot be written: (Not a directory|File exists)"):
        exported(plain_file, tmp_path / "file" / "m.pt2", None, format="torch_export")
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(RecipeError, match=r"m\.onnx is a folder"):
        prepare(replace(options(plain_file, tmp_path / "m.onnx" / "m.onnx"), out=tmp_path / "m.onnx"))


class WithoutOperator(nn.Module):
    """Calls what ONNX does not have."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, features: list[Tensor]) -> Any:
        return self.inner([torch.special.bessel_j0(feature) for feature in features])


class Deciding(WithoutOperator):
    def forward(self, features: list[Tensor]) -> Any:
        if features[0].sum() > 0:
            features = [-feature for feature in features]
        return self.inner(features)


def test_operator_that_onnx_lacks(plain_file: Path) -> None:
    reference = detkit.load(plain_file, ["tests"])
    reference.detector.head = WithoutOperator(reference.detector.head)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ExportError, match=r"no operator for prims.bessel_j0.default, which head calls: replace"):
        make_artifact(reference.detector, reference.decode, ExportSpec(image_hw=tiny.IMAGE_HW))


def test_decision_in_python(plain_file: Path) -> None:
    reference = detkit.load(plain_file, ["tests"])
    reference.detector.head = Deciding(reference.detector.head)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ExportError, match=r"torch\.export cannot capture Detector: .*test_run\.py.*torch\.where"):
        make_artifact(reference.detector, reference.decode, ExportSpec(image_hw=tiny.IMAGE_HW))


def odd_graph() -> onnx.ModelProto:
    """Of an operator that nobody has."""
    node = onnx.helper.make_node("NoSuchOperator", ["images"], ["boxes"], domain="nowhere")
    given = [onnx.helper.make_tensor_value_info(name, 1, None) for name in ("images", "boxes")]
    graph = onnx.helper.make_graph([node], "none", given[:1], given[1:])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("nowhere", 1)], ir_version=10)


def test_runtime_that_cannot_run_it(plain_file: Path, tmp_path: Path) -> None:
    """A graph that ONNX Runtime refuses; nothing is left behind."""
    export = prepare(options(plain_file, tmp_path / "m.onnx"))
    signature = Signature("decoded", ("boxes", "scores"), False, "batch", tiny.IMAGE_HW, 8, "distances")
    trial = export.exported_file.written_for_check(Artifact("onnx", signature, odd_graph()))
    with pytest.raises(ExportError, match=r"onnxruntime 1\.\S+ cannot run the export: .*NoSuchOperator"), trial:
        pass
    assert list(tmp_path.iterdir()) == []


def test_operator_that_openvino_lacks(tmp_path: Path) -> None:
    level = logging.getLogger().level
    with pytest.raises(ExportError, match=r"OpenVINO cannot convert the graph: .*NoSuchOperator.*; format=onnx"):
        write_openvino(tmp_path / "m.xml", odd_graph(), {})
    assert list(tmp_path.iterdir()) == []
    assert logging.getLogger().level == level  # which the converter sets


@pytest.mark.parametrize(("write", "name"), [(write_onnx, "m.onnx"), (write_openvino, "m.xml")])
def test_file_that_finds_no_room(tmp_path: Path, write: Any, name: str) -> None:
    """The one before stays."""
    model = parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        large (float[1000000] x) => (float[1000000] y) <float[1000000] w> { y = Add (x, w) }""")
    model.graph.initializer.append(numpy_helper.from_array(np.arange(1e6, dtype=np.float32), "w"))
    (tmp_path / name).write_text("before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
    try:
        with pytest.raises(StorageError, match=rf"{name}: cannot be written: "):
            write(tmp_path / name, model, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "before"


def test_truth_of_some_images() -> None:
    """Rows of the others go, and those of the rest move up."""
    truth = GroundTruth(
        image_ids=np.array([5, 9, 7]),
        sizes_hw=np.array([[1, 1], [2, 2], [3, 3]]),
        boxes_xywh=np.arange(16.0).reshape(4, 4),
        areas=np.arange(4.0),
        crowd=np.array([False, True, False, True]),
        labels=np.array([0, 1, 0, 1]),
        image_rows=np.array([2, 0, 1, 2]),
        category_ids=np.array([1, 2]),
        class_names=("a", "b"),
    )
    some = of_images(truth, [7, 9])
    assert some.image_ids.tolist() == [9, 7] and some.sizes_hw.tolist() == [[2, 2], [3, 3]]
    assert some.image_rows.tolist() == [1, 0, 1] and some.areas.tolist() == [0, 2, 3]
    assert some.crowd.tolist() == [False, False, True] and some.boxes_xywh[:, 0].tolist() == [0, 8, 12]


def test_place_of_the_export(tmp_path: Path, plain_file: Path) -> None:
    (tmp_path / "run").mkdir()
    weights = detkit.load(plain_file, ["tests"]).detector.state_dict()
    file = tmp_path / "run" / "detector.safetensors"
    metadata = {"recipe": tiny.config_of(tiny.PLAIN), "class_names": ["a", "b"], "image_hw": list(tiny.IMAGE_HW)}
    write_detector(file, weights, metadata)
    other = file.rename(tmp_path / "run" / "cats.safetensors")
    write_detector(file, weights, metadata)
    for given, expected in (
        (ExportOptions(str(file.parent)), "run/model.onnx"),
        (ExportOptions(str(file), precision="int8"), "run/model_int8.onnx"),
        (ExportOptions(str(other), format="openvino"), "run/cats.xml"),
        (ExportOptions(str(other), out=tmp_path / "there"), "there/cats.onnx"),
        (ExportOptions(str(other), out=tmp_path / "there.onnx"), "there.onnx"),
    ):
        assert prepare(replace(given, trusted=("tests",))).exported_file.out == tmp_path / expected
