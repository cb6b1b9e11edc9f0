"""Conversion of an ONNX graph to float16."""

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from detkit.errors import ExportError
from detkit.exporting.formats.onnx_layers import Layers, with_names

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
LARGEST = float(np.finfo(np.float16).max)
# Operators that state a type themselves, or that ONNX does not define for float16.
STAY_FLOAT = {"Cast", "Constant", "ConstantOfShape", "EyeLike", "NonMaxSuppression", "Range"}
HALF_INPUTS = {"Resize": 1}  # number of leading inputs that may be float16; the scales of Resize may not


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert weights and arithmetic to float16, which halves the file.

    Inputs and outputs keep their types. The arithmetic after the last layers stays float32, because float16 rounds
    box coordinates near 640 pixels by up to a quarter of a pixel. Runtimes without float16 arithmetic, such as most
    on CPUs, compute in float32 and are not faster. Weights beyond the range of float16 become its largest value.

    Raises:
        ExportError: if a node contains a subgraph.
    """
    nested = sorted({node.op_type for node in model.graph.node if any(a.HasField("g") for a in node.attribute)})
    if nested:
        raise ExportError(
            f"float16 needs a graph without branches and loops; this one has {', '.join(nested)}; use precision=fp32"
        )
    converter = _Converter(with_names(model))
    for node in converter.read:
        converter.add(node)
    return converter.finish()


class _Converter:
    """Converts nodes in order, and adds casts where the precision changes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self.model = model
        self.read = list(model.graph.node)
        self._written: list[onnx.NodeProto] = []
        self._in_float = Layers(model).arithmetic
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._precision: dict[str, int] = {name: tensor.data_type for name, tensor in self._initializers.items()}
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            self._precision[value.name] = value.type.tensor_type.elem_type
        self._outputs = {value.name for value in model.graph.output}
        self._made: set[str] = set()

    def add(self, node: onnx.NodeProto) -> None:
        """Append the node, after casts of its inputs."""
        halved = node.name not in self._in_float and node.op_type not in STAY_FLOAT
        number = HALF_INPUTS.get(node.op_type, len(node.input)) if halved else 0
        for place, name in enumerate(node.input):
            node.input[place] = self._as(name, HALF if place < number else FLOAT)
        self._written.append(node)
        for place, name in enumerate(node.output):
            if not halved or self._precision.get(name) != FLOAT:
                continue
            if name in self._outputs:
                node.output[place] = f"{name}/float16"
                self._written.append(onnx.helper.make_node("Cast", [node.output[place]], [name], to=FLOAT))
            else:
                self._precision[name] = HALF

    def finish(self) -> onnx.ModelProto:
        """The graph of the appended nodes."""
        graph = self.model.graph
        del graph.node[:], graph.value_info[:]
        graph.node.extend(self._written)
        used = {name for node in self._written for name in node.input} | self._outputs
        kept = [tensor for tensor in self._initializers.values() if tensor.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        return self.model

    def _as(self, name: str, wanted: int) -> str:
        """The name of a value in the wanted precision; values that are not floats keep their name."""
        if self._precision.get(name) not in (FLOAT, HALF) or self._precision[name] == wanted:
            return name
        new = f"{name}/{'float16' if wanted == HALF else 'float32'}"
        if new not in self._made:
            self._made.add(new)
            if name in self._initializers:
                self._initializers[new] = _halved(self._initializers[name], new)
            else:
                self._written.append(onnx.helper.make_node("Cast", [name], [new], name=f"Cast/{new}", to=wanted))
        return new


def _halved(tensor: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    within = np.where(np.isfinite(values), values.clip(-LARGEST, LARGEST), values)
    return numpy_helper.from_array(within.astype(np.float16), name)
