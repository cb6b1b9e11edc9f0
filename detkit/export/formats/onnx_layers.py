"""The layers of an ONNX graph: its nodes with weights, named by the modules of torch that they come from."""

import ast
from collections.abc import Sequence

import onnx

WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class Layers:
    """Which layer each node belongs to, and which nodes make the answers.

    A layer is a node with weights; an activation function and whatever else follows belong to it, up to the next
    layer. It is called as its module is ("backbone.stages.0.1.conv1"), or as its node where no exporter noted that.

    Args:
        model: every node has a name of its own, see ``with_names``.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._made_by = {output: node for node in model.graph.node for output in node.output}
        self._shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        self.of_node: dict[str, str] = {}  # node to layer; "" for what precedes the first one
        for node in model.graph.node:
            self.of_node[node.name] = module_path(node) if self._has_weights(node) else self._layer_before(node)
        self.names = tuple(dict.fromkeys(name for name in self.of_node.values() if name))
        self.products = {  # of two activations, as in attention, or with a constant vector
            node.name for node in model.graph.node if node.op_type in WITH_WEIGHTS and not self._has_weights(node)
        }
        self.last, self.arithmetic = self._answering([output.name for output in model.graph.output])

    def nodes_of(self, names: Sequence[str]) -> list[str]:
        """The nodes of these layers, and of all inside the modules of these names.

        Raises:
            ValueError: if a name is that of no layer.
        """
        unknown = [name for name in names if not any(_inside(layer, name) for layer in self.names)]
        if unknown:
            raise ValueError(
                f"no layer of the graph is called {', '.join(unknown)}; "
                f"it has {len(self.names)}, such as {', '.join(self.names[:3])}"
            )
        return [node for node, layer in self.of_node.items() if any(_inside(layer, name) for name in names)]

    def _has_weights(self, node: onnx.NodeProto) -> bool:
        """A product with a constant vector, such as the mean over distance bins, is arithmetic and no layer."""
        shapes = [self._shapes[name] for name in node.input if name in self._shapes]
        wide = any(sum(side > 1 for side in shape) > 1 for shape in shapes)
        return node.op_type in WITH_WEIGHTS and (wide or (node.op_type == "Conv" and bool(shapes)))

    def _layer_before(self, node: onnx.NodeProto) -> str:
        before = (self.of_node.get(self._made_by[name].name, "") for name in node.input if name in self._made_by)
        return next((layer for layer in before if layer), "")

    def _answering(self, outputs: list[str]) -> tuple[set[str], set[str]]:
        """The last layers on every way to an output, and the nodes after them."""
        last: set[str] = set()
        arithmetic: set[str] = set()
        waiting = list(outputs)
        while waiting:
            node = self._made_by.get(waiting.pop())
            if node is None or node.name in last | arithmetic:
                continue
            if self._has_weights(node):
                last.add(node.name)
            else:
                arithmetic.add(node.name)
                waiting += node.input
        return last, arithmetic


def module_path(node: onnx.NodeProto) -> str:
    """The module that a node was exported from, as the detector calls it; the node's name where it is not noted."""
    noted = {entry.key: entry.value for entry in node.metadata_props}
    scopes = ast.literal_eval(noted.get("pkg.torch.onnx.name_scopes", "[]"))  # from the outermost to the call itself
    return (scopes[-2].removeprefix("detector.") if len(scopes) > 1 else "") or node.name


def with_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every node has a name of its own."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    taken = set()
    for number, node in enumerate(copy.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}/{number}"
        taken.add(node.name)
    return copy


def _inside(layer: str, name: str) -> bool:
    return layer == name or layer.startswith(f"{name}.")
