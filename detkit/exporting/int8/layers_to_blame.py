"""Which layers of an ONNX graph compute something else than the layers of the detector."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from detkit.exporting.formats.artifact import ExportSpec
from detkit.exporting.formats.capture import capture
from detkit.exporting.formats.folding import folded
from detkit.exporting.formats.graph import ExportGraph
from detkit.exporting.formats.onnx_layers import module_path, with_names
from detkit.exporting.int8.layer_loss import rank_layers
from detkit.inference.exported_detector import program_input
from detkit.inference.predictor import Predictor
from detkit.ops.strides import largest_stride_of

SHOWN = 3
LEAST_ERROR = 1e-4  # relative; rounding in float32 causes about 1e-6


def differing_layers(network: nn.Module, model: onnx.ModelProto, batch: np.ndarray) -> list[tuple[str, float]]:
    """Relative error of each convolution and linear layer, worst first.

    Each module receives the input that its node of the graph received, so errors of earlier layers do not count. The
    error is the norm of the difference of both outputs over the norm of the module's output.

    Args:
        network: that the graph was exported from, with the same layers folded, on the CPU.
        model: with module paths in its nodes.
        batch: for the graph's input.
    """
    model = with_names(model)
    nodes = list(_nodes_with_modules(model, network))
    wanted = dict.fromkeys(name for node, _, _ in nodes for name in (node.input[0], node.output[0]))
    values = _values(model, list(wanted), batch)
    errors: dict[str, float] = defaultdict(float)
    for node, path, module in nodes:
        node_input, node_output = (values[name].astype(np.float32) for name in (node.input[0], node.output[0]))
        errors[path] = max(errors[path], _error(_expected(module, node, node_input), node_output))
    return sorted(errors.items(), key=lambda pair: -pair[1])


def layers_to_blame(
    reference: Predictor, spec: ExportSpec, model: onnx.ModelProto, before: onnx.ModelProto | None, images: Tensor
) -> str:
    """The layers with the largest errors, as text for a message.

    Args:
        reference: the exported detector.
        spec: of the export.
        model: the graph of the export.
        before: the graph before quantization to int8; None compares with the torch layers instead.
        images: (B, 3, H, W) in [0, 1].
    """
    batch = program_input(images[: 1 if spec.dynamic == "none" else 2], spec.takes_uint8)
    if before is not None:
        return worst_layers(rank_layers(before, model, [batch]))
    graph = ExportGraph(folded(reference.detector), reference.decode, "raw", spec.takes_uint8)
    capture(graph, spec.image_hw, "none", largest_stride_of(reference.detector))  # folds its norms
    return worst_layers(differing_layers(graph.detector, model, batch))


def worst_layers(errors: Sequence[tuple[str, float]]) -> str:
    """The layers with the largest errors, as text for a message."""
    worst = [f"{path} ({100 * error:.3g} %)" for path, error in errors[:SHOWN] if error >= LEAST_ERROR]
    if not worst:
        return "no layer differs on its own; the arithmetic between them or the runtime does"
    return f"the layers that differ most are {', '.join(worst)}"


def _nodes_with_modules(model: onnx.ModelProto, network: nn.Module) -> Iterator[tuple[onnx.NodeProto, str, nn.Module]]:
    kinds: dict[str, type[nn.Module]] = {"Conv": nn.Conv2d, "Gemm": nn.Linear, "MatMul": nn.Linear}
    modules = dict(network.named_modules())
    for node in model.graph.node:
        path = module_path(node)
        if node.op_type in kinds and isinstance(modules.get(path), kinds[node.op_type]):
            yield node, path, modules[path]


def _values(model: onnx.ModelProto, names: list[str], batch: np.ndarray) -> dict[str, np.ndarray]:
    """The values of these names when the graph is run."""
    input_name = model.graph.input[0].name
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    del probed.graph.output[:]
    probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name != input_name)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(probed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    output_names = [output.name for output in probed.graph.output]
    outputs = map(np.asarray, session.run(output_names, {input_name: batch}))
    return {input_name: batch, **dict(zip(output_names, outputs, strict=True))}


def _expected(module: nn.Module, node: onnx.NodeProto, node_input: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        output = module(torch.from_numpy(node_input))
        if node.op_type == "MatMul" and module.bias is not None:  # the next node adds the bias
            output = output - module.bias
    return output.numpy()


def _error(expected: np.ndarray, found: np.ndarray) -> float:
    if not np.isfinite(expected).all():
        return 0.0  # the input of the layer is not finite
    if expected.shape != found.shape or not np.isfinite(found).all():
        return float("inf")
    difference, size = np.linalg.norm(expected - found), np.linalg.norm(expected)
    return float(difference / size) if size else float(difference)
