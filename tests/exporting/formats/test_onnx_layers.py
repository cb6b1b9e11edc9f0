"""Which nodes of a graph are layers, what they are called and which of them answer."""

import numpy as np
import onnx
from onnx import numpy_helper, parser

from detkit.exporting.formats.onnx_layers import Layers, with_names


def graph(text: str, **shapes: tuple[int, ...]) -> onnx.ModelProto:
    """Of ONNX's own text, with weights of ones."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.ones(s, np.float32), name) for name, s in shapes.items())
    return model


def test_layers_are_named_by_their_modules() -> None:
    model = graph(
        """net (float[B,3,8,8] x) => (float[B,4,8,8] boxes) <float[6,3,1,1] w1, float[6,6,1,1] w2, float[4,6,1,1] w3>
        { [first] a = Conv (x, w1)  [gate] g = Sigmoid (a)  [mul] c = Mul (a, g)  [second] d = Conv (c, w2)
          [last] e = Conv (d, w3)  [decode] boxes = Sigmoid (e) }""",
        w1=(6, 3, 1, 1),
        w2=(6, 6, 1, 1),
        w3=(4, 6, 1, 1),
    )
    scopes = {"first": "['', 'detector', 'detector.backbone.stem', 'conv2d']", "last": "['', 'conv2d']"}
    for node in model.graph.node:
        if node.name in scopes:
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes[node.name])
    layers = Layers(model)
    assert layers.names == ("backbone.stem", "second", "last")
    assert layers.nodes_of(["backbone.stem"]) == ["first", "gate", "mul"]
    assert (layers.last, layers.arithmetic) == ({"last"}, {"decode"})


def test_product_with_a_vector_is_no_layer() -> None:
    """The mean over distance bins belongs to the decoder."""
    model = graph(
        """net (float[B,8] x) => (float[B,1] mean) <float[8,8] w, float[8,1] bins>
        { y = MatMul (x, w)  p = Softmax (y)  mean = MatMul (p, bins) }""",
        w=(8, 8),
        bins=(8, 1),
    )
    layers = Layers(with_names(model))
    assert (layers.last, layers.arithmetic) == ({"MatMul/0"}, {"Softmax/1", "MatMul/2"})


def test_every_way_to_an_output_has_its_last_layer() -> None:
    """As in a DETR: boxes are refined from a reference that has a layer of its own."""
    model = graph(
        """net (float[B,8] x) => (float[B,8] boxes) <float[8,8] w1, float[8,8] w2, float[8,8] w3>
        { [body] y = MatMul (x, w1)  [guess] r = MatMul (y, w2)  [refine] d = MatMul (y, w3)
          [sum] s = Add (r, d)  [squash] boxes = Sigmoid (s) }""",
        w1=(8, 8),
        w2=(8, 8),
        w3=(8, 8),
    )
    layers = Layers(model)
    assert (layers.last, layers.arithmetic) == ({"guess", "refine"}, {"sum", "squash"})
