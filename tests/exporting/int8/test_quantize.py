"""Int8 against the same arithmetic done by hand, and what becomes of layers that int8 ruins."""

import logging
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper, parser

import detkit.exporting.int8.quantize
from detkit.errors import ExportError
from detkit.exporting.int8.layer_loss import rank_layers
from detkit.exporting.int8.quantize import Int8Runtime, QuantizedModel, quantize

pytestmark = pytest.mark.kernels

# Three convolutions with SiLU between them, and what stands for a decoder: boxes of some hundred pixels.
NET = """
<ir_version: 10, opset_import: ["" : 20], metadata_props: ["names": "cell"]>
net (float[B,3,12,12] images) => (float[B,4,12,12] boxes)
<float[6,3,3,3] w1, float[6] b1, float[6,6,3,3] w2, float[6] b2, float[4,6,1,1] w3, float[1] pixels>
{
    [first] a = Conv <pads = [1, 1, 1, 1]> (images, w1, b1)
    [first_sigmoid] a_gate = Sigmoid (a)
    [first_mul] c = Mul (a, a_gate)
    [second] d = Conv <pads = [1, 1, 1, 1]> (c, w2, b2)
    [second_sigmoid] d_gate = Sigmoid (d)
    [second_mul] e = Mul (d, d_gate)
    [last] f = Conv (e, w3)
    [decode] boxes = Add (f, pixels)
}
"""


def net(outlier: float = 0.0) -> onnx.ModelProto:
    """The net with random weights.

    Args:
        outlier: one weight of each channel of the second layer, on an input that is always 0 (its channel is made so):
            it takes the range of the others, and adds nothing.
    """
    random = np.random.default_rng(0)
    shapes = {"w1": (6, 3, 3, 3), "b1": (6,), "w2": (6, 6, 3, 3), "b2": (6,), "w3": (4, 6, 1, 1)}
    weights = {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    weights["pixels"] = np.array([600], np.float32)
    if outlier:
        weights["w1"][0] = weights["b1"][0] = 0
        weights["w2"][:, 0, 1, 1] = outlier
    model = parser.parse_model(NET)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    return model


def int8_of(
    model: onnx.ModelProto, batches: Iterable[np.ndarray], runtime: Int8Runtime = "onnxruntime"
) -> onnx.ModelProto:
    """The first graph, in which all layers but the last are int8."""
    return quantize(model, batches, lambda _: True, runtime).model


def batches(number: int = 3) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.random((2, 3, 12, 12), np.float32) for _ in range(number)]


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [output] = session.run(None, {session.get_inputs()[0].name: images})
    return np.asarray(output)


def run_in_openvino(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    core = openvino.Core()
    program = core.compile_model(core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    [output] = program(images).values()
    return np.asarray(output)


RUN = {"onnxruntime": run, "openvino": run_in_openvino}


def weights_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def error(model: onnx.ModelProto, of: onnx.ModelProto) -> float:
    """Of the boxes, relative to their spread."""
    [images] = batches(1)
    truth = run(of, images)
    return float(np.abs(run(model, images) - truth).mean() / truth.std())


def rounded(values: torch.Tensor, lowest: float, highest: float) -> torch.Tensor:
    """To 256 steps from the lowest to the highest; 0 is one of them."""
    lowest, highest = min(lowest, 0), max(highest, 0)
    step = (highest - lowest) / 255
    zero = round(-lowest / step)
    return ((values / step).round() + zero).clamp(0, 255).sub(zero) * step


def rounded_weights(weights: torch.Tensor) -> torch.Tensor:
    """To 64 steps on either side of 0, for each output channel."""
    step = weights.abs().amax(dim=(1, 2, 3), keepdim=True) / 64
    return (weights / step).round() * step


def by_hand(model: onnx.ModelProto, images: np.ndarray, between: bool) -> np.ndarray:
    """The net in float arithmetic on rounded values; between: whether the activation function is rounded too."""
    w = {name: torch.from_numpy(value.copy()) for name, value in weights_of(model).items()}
    seen = torch.from_numpy(np.concatenate(batches()))
    x = torch.from_numpy(images)

    def in_int8(values: torch.Tensor, on_batches: torch.Tensor) -> torch.Tensor:
        return rounded(values, float(on_batches.min()), float(on_batches.max()))

    for number in (1, 2):
        weight, bias = w[f"w{number}"], w[f"b{number}"]
        x = F.conv2d(in_int8(x, seen), rounded_weights(weight), bias, padding=1)
        seen = F.conv2d(seen, weight, bias, padding=1)
        if between:
            x = in_int8(x, seen)
            x = x * in_int8(x.sigmoid(), seen.sigmoid())
            x = in_int8(x, F.silu(seen))
        else:
            x = F.silu(x)
        seen = F.silu(seen)
    return (F.conv2d(x, w["w3"]) + w["pixels"]).numpy()


@pytest.mark.parametrize(("runtime", "between"), [("openvino", False), ("onnxruntime", True)])
def test_int8_is_the_arithmetic_by_hand(runtime: Int8Runtime, between: bool) -> None:
    model = net()
    int8 = int8_of(model, iter(batches()), runtime=runtime)
    [images] = batches(1)
    given, expected = RUN[runtime](int8, images), by_hand(model, images, between)
    off = np.abs(given - expected)
    lost = np.abs(expected - run(model, images))
    assert lost.mean() > 1e-3  # int8 loses something, and by hand the same is lost
    assert off.mean() < lost.mean() / 20  # a value on the edge between two steps may fall on either
    assert weights_of(int8)["w3"].dtype == np.float32
    assert weights_of(int8)["images_zero_point"].dtype == np.uint8  # ONNX Runtime is slow with int8 on x86
    assert {w.dtype for name, w in weights_of(int8).items() if name.startswith(("w1", "w2"))} >= {np.dtype(np.int8)}
    assert len(np.unique(given)) > 1000  # the answer is not in 256 steps
    assert [(entry.key, entry.value) for entry in int8.metadata_props] == [("names", "cell")]


def test_openvino_computes_the_same() -> None:
    """It fails on a matrix product of joined values that have an offset each, where the batch may vary."""
    model = parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        net (float[B,40,16] x) => (float[B,80,4] y) <float[16,16] w1, float[16,16] w2, float[16,4] w3>
        { a = MatMul (x, w1)  b = Concat <axis = 1> (x, a)  c = MatMul (b, w2)  y = MatMul (c, w3) }""")
    random = np.random.default_rng(0)
    for name, shape in (("w1", (16, 16)), ("w2", (16, 16)), ("w3", (16, 4))):
        model.graph.initializer.append(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name))
    images = random.random((2, 40, 16), np.float32) - np.float32(0.3)
    int8 = int8_of(model, [images], runtime="openvino")
    given, truth, expected = run_in_openvino(int8, images), run(model, images), run(int8, images)
    lost = np.abs(expected - truth).mean()
    assert 0.001 < lost / truth.std() < 0.05
    assert np.abs(given - expected).mean() < lost / 20  # a value on the edge between two steps may fall on either


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("layer", "shape", "size"),
    [("Conv", (8, 32, 1, 1), (32, 4, 4)), ("Conv", (8, 32, 3, 3), (32, 6, 6)), ("MatMul", (32, 8), (16, 32))],
)
def test_largest_sums_fit(layer: str, shape: tuple[int, ...], size: tuple[int, ...], runtime: Int8Runtime) -> None:
    """All activations and weights at their greatest: CPUs without VNNI add two products in 16 bits."""
    ones = (1, 1) if layer == "Conv" else ()
    signs = np.array([1, -1, 1, 1, -1, 1, -1, -1], np.float32).reshape(8, *ones)
    weights = np.broadcast_to(signs[:, None] if layer == "Conv" else signs, shape)
    model = parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]>
        net (float[B,{",".join(map(str, size))}] x) => (float[] y)
        {{ a = {layer} (x, w)  y = {layer} (a, last) }}""")
    for name, value in (("w", weights.copy()), ("last", np.eye(8, dtype=np.float32).reshape(8, 8, *ones))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    images = np.ones((2, *size), np.float32)
    found = RUN[runtime](int8_of(model, [images], runtime=runtime), images)
    most = weights.size / 8
    assert found.size == 256
    assert np.abs(found - most * signs).max() < most / 200  # half a step is 1/255: there are 255 from -most to most


def test_products_of_activations_stay_float() -> None:
    """Both have 8 bits, as in attention: CPUs without VNNI cannot add two of their products in 16 bits."""
    model = parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        net (float[B,16,32] x) => (float[] y)
        { a = MatMul (x, w)  turned = Transpose <perm = [0, 2, 1]> (a)
          [product] b = MatMul (a, turned)  c = MatMul (b, inner)  y = MatMul (c, last) }""")
    for name, value in (("w", np.ones((32, 8))), ("inner", np.eye(16)), ("last", np.eye(16))):
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    images = np.ones((2, 16, 32), np.float32)
    int8 = int8_of(model, [images], runtime="openvino")
    assert weights_of(int8)["inner_quantized"].dtype == np.int8
    [product] = [node for node in int8.graph.node if node.name == "product"]
    assert run_in_openvino(int8, images) == pytest.approx(8 * 32 * 32, rel=1 / 127)  # half a step on either side
    assert list(product.input) == ["a", "turned"]


def test_float_graph_stays_as_it_is() -> None:
    model = net()
    before = model.SerializeToString(deterministic=True)
    int8_of(model, batches())
    assert model.SerializeToString(deterministic=True) == before


def test_images_of_bytes() -> None:
    text = NET.replace("float[B,3,12,12] images", "uint8[B,12,12,3] pictures").replace(
        "[first] a", "real = Cast <to = 1> (pictures)\nturned = Transpose <perm = [0, 3, 1, 2]> (real)\n"
        "images = Div (turned, white)\n[first] a"
    ).replace("float[1] pixels", "float[1] pixels, float[1] white")  # fmt: skip
    model = parser.parse_model(text)
    model.graph.initializer.extend(net().graph.initializer)
    model.graph.initializer.append(numpy_helper.from_array(np.array([255], np.float32), "white"))
    bytes_of = [(batch.transpose(0, 2, 3, 1) * 255).round().astype(np.uint8) for batch in batches()]
    int8 = int8_of(model, bytes_of)
    from_floats = int8_of(net(), [(batch / np.float32(255)).transpose(0, 3, 1, 2) for batch in bytes_of])
    floats = (bytes_of[0] / np.float32(255)).transpose(0, 3, 1, 2)
    assert np.abs(run(int8, bytes_of[0]) - run(from_floats, floats)).max() < 1e-3


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_worst_layer_is_found_and_left_in_float(runtime: Int8Runtime) -> None:
    model = net(outlier=300.0)
    int8 = int8_of(model, batches(), runtime=runtime)
    ranking = rank_layers(model, int8, batches(2))
    assert [name for name, _ in ranking] == ["second", "first"]
    assert ranking[0][1] > 0.3
    assert ranking[1][1] < 0.05

    measured = []

    def is_good_enough(candidate: onnx.ModelProto) -> bool:
        measured.append(error(candidate, model))
        return measured[-1] < 0.05

    found = quantize(model, iter(batches()), is_good_enough, runtime=runtime)
    assert found[1:] == (("second",), True)
    assert len(measured) == 2
    assert measured[0] > 0.3
    assert measured[1] == error(found.model, model)
    assert np.array_equal(weights_of(found.model)["w2"], weights_of(model)["w2"])
    assert "w1" not in weights_of(found.model)


def test_rounds_are_limited() -> None:
    seen = []
    found = quantize(net(), batches(), lambda graph: bool(seen.append(graph)), max_rounds=2)
    assert isinstance(found, QuantizedModel)
    assert len(seen) == 2
    assert not found.good_enough
    assert found.model is seen[-1]
    assert len(found.in_float) == 1


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_ends_where_all_is_float(runtime: Int8Runtime) -> None:
    found = quantize(net(), batches(), lambda _: False, runtime=runtime, max_rounds=5)
    assert sorted(found.in_float) == ["first", "second"]
    assert error(found.model, net()) < 1e-6


def test_each_round_gives_up_other_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A float layer may lose still: what reads it may round it."""
    monkeypatch.setattr(detkit.exporting.int8.quantize, "rank_layers", lambda *_: [("second", 0.2), ("first", 0.1)])
    assert quantize(net(), batches(), lambda _: False, max_rounds=5).in_float == ("second", "first")


def test_error_of_a_layer_is_its_own() -> None:
    """What the first layer ruins does not count for the second one."""
    model = net()
    first = next(tensor for tensor in model.graph.initializer if tensor.name == "w1")
    ruined = numpy_helper.to_array(first).copy()
    ruined[:, 2, 1, 1] = 300  # on a channel that is dark
    first.CopyFrom(numpy_helper.from_array(ruined, "w1"))
    dark = [batch * np.array([1, 1, 0], np.float32).reshape(1, 3, 1, 1) for batch in batches()]
    ranking = dict(rank_layers(model, int8_of(model, dark, runtime="openvino"), dark))
    assert ranking["first"] > 0.3
    assert ranking["second"] < 0.02


def test_says_nothing_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    quantize(net(), batches(), lambda _: False, max_rounds=2)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert (root.handlers, root.filters, root.level) == (before, [], level)


def test_batches_are_not_kept() -> None:
    alive: list[Any] = []
    most = 0

    def many() -> Iterator[np.ndarray]:
        nonlocal most
        for batch in batches(40):
            copy = batch.copy()
            alive.append(weakref.ref(copy))
            most = max(most, sum(reference() is not None for reference in alive))
            yield copy

    int8_of(net(), many())
    assert most <= 7  # four rank the layers
    assert len(alive) == 40


def test_no_batches() -> None:
    with pytest.raises(ExportError, match="ranges of activations on; there is no batch"):
        int8_of(net(), [])


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (
            np.zeros((2, 3, 12, 8), np.float32),
            r"must be float32 \(any, 3, 12, 12\); batch 1 is float32 \(2, 3, 12, 8\)",
        ),
        (np.zeros((3, 12, 12), np.float32), r"batch 1 is float32 \(3, 12, 12\)"),
        (np.zeros((2, 3, 12, 12)), r"batch 1 is float64 \(2, 3, 12, 12\)"),
        (np.full((2, 3, 12, 12), np.nan, np.float32), "must be finite; batch 1 holds nan"),
        (np.full((2, 3, 12, 12), -np.inf, np.float32), "must be finite; batch 1 holds -inf"),
    ],
)
def test_wrong_batch(batch: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        int8_of(net(), [*batches(1), batch])


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="runtime must be one of onnxruntime, openvino; got 'tensorrt'"):
        int8_of(net(), batches(), runtime="tensorrt")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="max_rounds must be at least 1; got 0"):
        quantize(net(), batches(), lambda _: True, max_rounds=0)
    model = net()
    model.graph.input.add().CopyFrom(onnx.helper.make_tensor_value_info("scale", onnx.TensorProto.FLOAT, [1]))
    with pytest.raises(ValueError, match="must have one input, of images; got 2: images, scale"):
        int8_of(model, batches())
