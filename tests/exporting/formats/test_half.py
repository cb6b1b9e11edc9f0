"""Float16 against float32, and what must not become float16."""

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import TensorProto, numpy_helper, parser

from detkit.errors import ExportError
from detkit.exporting.formats.half import to_half

# Bytes in; two convolutions with a resize between them; boxes of some hundred pixels, scores and labels out.
NET = """
<ir_version: 10, opset_import: ["" : 20], metadata_props: ["names": "cell"]>
net (uint8[B,8,8,3] images) => (float[B,4,16,16] boxes, float[B,4,16,16] raw, int64[B,16,16] labels)
<float[12,3,3,3] w1, float[12] b1, float[4,12,1,1] w2, float[1] pixels, float[1] white, float[4] twice>
{
    real = Cast <to = 1> (images)
    turned = Transpose <perm = [0, 3, 1, 2]> (real)
    unit = Div (turned, white)
    a = Conv <pads = [1, 1, 1, 1]> (unit, w1, b1)
    gate = Sigmoid (a)
    c = Mul (a, gate)
    large = Resize <mode = "nearest"> (c, , twice)
    raw = Conv (large, w2)
    boxes = Add (raw, pixels)
    labels = ArgMax <axis = 1, keepdims = 0> (raw)
}
"""


def net() -> onnx.ModelProto:
    random = np.random.default_rng(0)
    values = {
        "w1": random.normal(0, 0.3, (12, 3, 3, 3)),
        "b1": random.normal(0, 0.3, 12),
        "w2": random.normal(0, 0.3, (4, 12, 1, 1)),
        "pixels": [600],
        "white": [255],
        "twice": [1, 1, 2, 2],
    }
    model = parser.parse_model(NET)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.float32), name) for name, value in values.items()
    )
    return model


def images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), np.uint8)


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, {"images": images()})]


def test_numbers_are_those_of_float16() -> None:
    """2 ** -11 of the sum of magnitudes for each of the roundings on the way, of inputs, weights and results."""
    half = to_half(net())
    onnx.checker.check_model(half, full_check=True)
    boxes, raw, labels = run(half)
    true_boxes, true_raw, _ = run(net())
    assert 1e-5 < np.abs(raw - true_raw).max() < 2**-11 * 10 * np.abs(true_raw).max()
    assert np.abs(boxes - true_boxes).max() < 2 * np.abs(raw - true_raw).max()  # in float16 boxes are 0.25 off
    assert (labels == raw.argmax(1)).all()
    assert (boxes.dtype, raw.dtype, labels.dtype) == (np.float32, np.float32, np.int64)


def test_openvino_reads_it_and_agrees() -> None:
    core = openvino.Core()
    program = core.compile_model(
        core.read_model(to_half(net()).SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    boxes, raw, _ = (np.asarray(value) for value in program(images()).values())
    true_boxes, true_raw, _ = run(net())
    assert np.abs(raw - true_raw).max() < 2**-11 * 10 * np.abs(true_raw).max()
    assert np.abs(boxes - true_boxes).max() < 2 * 2**-11 * 10 * np.abs(true_raw).max()


def test_what_the_graph_holds() -> None:
    before = net()
    unchanged = before.SerializeToString(deterministic=True)
    half = to_half(before)
    assert before.SerializeToString(deterministic=True) == unchanged
    types = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    small = {name for name, dtype in types.items() if dtype == TensorProto.FLOAT16}
    assert small == {"w1/float16", "b1/float16", "w2/float16", "white/float16"}
    assert types.keys() - small == {"pixels", "twice"}
    assert [value.name for value in half.graph.input] == ["images"]
    assert [value.name for value in half.graph.output] == ["boxes", "raw", "labels"]
    assert [(entry.key, entry.value) for entry in half.metadata_props] == [("names", "cell")]


def test_weights_beyond_the_range() -> None:
    model = net()
    large = next(tensor for tensor in model.graph.initializer if tensor.name == "b1")
    large.CopyFrom(numpy_helper.from_array(np.array([1e6, -1e6, -np.inf, np.inf] + [0] * 8, np.float32), "b1"))
    [found] = [numpy_helper.to_array(t) for t in to_half(model).graph.initializer if t.name == "b1/float16"]
    assert found[:4].tolist() == [65504, -65504, -np.inf, np.inf]


def test_graphs_within_graphs_are_refused() -> None:
    model = parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        net (bool yes, float[4] x) => (float[4] y)
        { y = If (yes) <then_branch = one () => (float[4] a) { a = Neg (x) },
                        else_branch = other () => (float[4] b) { b = Abs (x) }> }""")
    with pytest.raises(ExportError, match=r"without branches and loops; .* has If; .*precision=fp32"):
        to_half(model)
