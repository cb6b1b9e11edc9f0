"""The layers of an ONNX graph: its nodes with weights, named after their torch modules."""

import ast
from collections.abc import Collection

import onnx

WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class Layers:
    """Assigns each node to a layer, and finds the last layers before the outputs.

    A layer is a node with weights and all nodes after it up to the next layer, such as its activation function. Its
    name is the path of its module ("backbone.stages.0.1.conv1"), or the node's name if the graph has no module paths.

    Args:
        model: each node has a unique name, see ``with_names``.

    Attributes:
        of_node: name of each node to the name of its layer; "" for nodes before the first layer.
        names: of all layers, in the order of the graph.
        products: nodes that multiply two activations, as in attention, or an activation and a constant vector.
        last: nodes of the last layer on each path to an output.
        arithmetic: nodes after the last layers.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._made_by = {output: node for node in model.graph.node for output in node.output}
        self._shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        self.of_node: dict[str, str] = {}
        for node in model.graph.node:
            self.of_node[node.name] = module_path(node) if self._has_weights(node) else self._layer_before(node)
        self.names = tuple(dict.fromkeys(name for name in self.of_node.values() if name))
        self.products = {
            node.name for node in model.graph.node if node.op_type in WITH_WEIGHTS and not self._has_weights(node)
        }
        self.last, self.arithmetic = self._answering([output.name for output in model.graph.output])

    def nodes_of(self, names: Collection[str]) -> list[str]:
        """The nodes of these layers."""
        return [node for node, layer in self.of_node.items() if layer in names]

    def _has_weights(self, node: onnx.NodeProto) -> bool:
        """Whether a node is a layer; a product with a constant vector, such as a mean over distance bins, is not."""
        shapes = [self._shapes[name] for name in node.input if name in self._shapes]
        wide = any(sum(side > 1 for side in shape) > 1 for shape in shapes)
        return node.op_type in WITH_WEIGHTS and (wide or (node.op_type == "Conv" and bool(shapes)))

    def _layer_before(self, node: onnx.NodeProto) -> str:
        before = (self.of_node.get(self._made_by[name].name, "") for name in node.input if name in self._made_by)
        return next((layer for layer in before if layer), "")

    def _answering(self, outputs: list[str]) -> tuple[set[str], set[str]]:
        """The nodes of the last layer on each path to an output, and the nodes after them."""
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
    """The path in the detector of the module that a node was exported from; the node's name if it is unknown."""
    noted = {entry.key: entry.value for entry in node.metadata_props}
    scopes = ast.literal_eval(noted.get("pkg.torch.onnx.name_scopes", "[]"))  # from the outermost to the call itself
    return (scopes[-2].removeprefix("detector.") if len(scopes) > 1 else "") or node.name


def with_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which each node has a unique name."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    taken = set()
    for number, node in enumerate(copy.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}/{number}"
        taken.add(node.name)
    return copy
