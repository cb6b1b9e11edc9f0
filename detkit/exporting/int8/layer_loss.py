"""The error that quantization causes in each layer of a graph."""

import math
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import onnx
import onnxruntime

from detkit.exporting.formats.onnx_layers import Layers, with_names

ROUNDING = ("QuantizeLinear", "DequantizeLinear")
PREFIX = "int8/"  # of names that come from the quantized graph


def rank_layers(
    float_model: onnx.ModelProto, int8_model: onnx.ModelProto, batches: Iterable[np.ndarray]
) -> list[tuple[str, float]]:
    """Relative error of each quantized layer, worst first.

    Each quantized node receives the activations of the float graph, so rounding in earlier layers does not count. The
    squared error of a layer is the sum over its nodes of: squared error of the output over squared float output.

    Args:
        float_model: the graph before quantization.
        int8_model: the quantized graph.
        batches: for the input of both.

    Returns:
        (layer name, error) of the layers that are quantized.
    """
    float_model = with_names(float_model)
    probe = _Probe(float_model, int8_model)
    if not probe.sums:
        return []
    sums: dict[str, float] = defaultdict(float)
    session = onnxruntime.InferenceSession(probe.model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in batches:
        values = session.run(list(probe.sums), {float_model.graph.input[0].name: batch})
        for name, value in zip(probe.sums, values, strict=True):
            sums[name] += float(np.asarray(value))
    layer_of = Layers(float_model).of_node
    squares: dict[str, float] = defaultdict(float)
    for node, (error, signal) in probe.compared.items():
        if layer_of[node]:
            squares[layer_of[node]] += _ratio(sums[error], sums[signal])
    return sorted(((name, math.sqrt(square)) for name, square in squares.items()), key=lambda pair: -pair[1])


def _ratio(error: float, signal: float) -> float:
    return error / signal if signal else (math.inf if error else 0.0)


class _Probe:
    """The float graph with a copy of each quantized node that reads the float activations."""

    def __init__(self, float_model: onnx.ModelProto, int8_model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(float_model)
        self.compared: dict[str, tuple[str, str]] = {}  # node to the outputs of its error and its signal
        self.sums: dict[str, None] = {}  # outputs of the graph, in order
        self._floats = {output for node in float_model.graph.node for output in node.output}
        self._floats |= {value.name for value in float_model.graph.input}
        self._floats |= {tensor.name for tensor in float_model.graph.initializer}
        self._made_by = {output: node for node in int8_model.graph.node for output in node.output}
        self._weights = {tensor.name: tensor for tensor in int8_model.graph.initializer}
        self._rounded = {node.input[0]: node for node in int8_model.graph.node if node.op_type == "QuantizeLinear"}
        self._dequantized = {
            node.input[0]: node for node in int8_model.graph.node if node.op_type == "DequantizeLinear"
        }
        self._copied: set[str] = set()
        del self.model.graph.output[:]
        for node in int8_model.graph.node:
            if node.op_type not in ROUNDING and self._is_quantized(node):
                self._compare(node)

    def _is_quantized(self, node: onnx.NodeProto) -> bool:
        """Whether its weights or its output are int8; int8 inputs belong to the node that makes them."""
        weights = [self._made_by[name] for name in node.input if name in self._made_by]
        from_int8 = any(made.op_type == "DequantizeLinear" and made.input[0] in self._weights for made in weights)
        return from_int8 or node.output[0] in self._rounded

    def _compare(self, node: onnx.NodeProto) -> None:
        """Add a quantized copy of a node, and outputs for the sums of squares of its error and of its float output."""
        output = node.output[0]
        if output not in self._floats:
            return
        quantized = self._copy(node)
        if rounded := self._rounded.get(output):
            integers = self._copy(rounded, {output: quantized})
            quantized = self._copy(self._dequantized[rounded.output[0]], {rounded.output[0]: integers})
        difference, error, signal = (f"{PREFIX}{output}/{what}" for what in ("difference", "error", "signal"))
        self.model.graph.node.extend(
            [
                onnx.helper.make_node("Sub", [output, quantized], [difference]),
                onnx.helper.make_node("ReduceSumSquare", [difference], [error], keepdims=0),
                onnx.helper.make_node("ReduceSumSquare", [output], [signal], keepdims=0),
            ]
        )
        for name in (error, signal):
            self.model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, []))
            self.sums[name] = None
        self.compared[node.name] = (error, signal)

    def _copy(self, node: onnx.NodeProto, replaced: dict[str, str] | None = None) -> str:
        """Add a copy of the node and of the nodes that round its inputs; ``replaced`` renames inputs.

        Returns:
            The name of the copy's output.
        """
        name = f"{PREFIX}{node.output[0]}" + ("/again" if replaced else "")
        if name not in self._copied:
            self._copied.add(name)
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = name
            copy.output[:] = [name, *(f"{PREFIX}{other}" for other in node.output[1:])]
            copy.input[:] = [(replaced or {}).get(source) or self._source(source) for source in node.input]
            self.model.graph.node.append(copy)
        return name

    def _source(self, name: str) -> str:
        """The input of a copy: rounded if it is rounded in the quantized graph, else from the float graph."""
        made_by = self._made_by.get(name)
        if made_by is not None and made_by.op_type in ROUNDING:
            return self._copy(made_by)
        if name in self._weights:
            new = f"{PREFIX}{name}"
            if new not in self._copied:
                self._copied.add(new)
                tensor = self.model.graph.initializer.add()
                tensor.CopyFrom(self._weights[name])
                tensor.name = new
            return new
        return name
