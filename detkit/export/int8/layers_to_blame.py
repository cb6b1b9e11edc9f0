"""Which layers of an ONNX graph are not those of the detector."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from detkit.export.formats.artifact import Form
from detkit.export.formats.capture import capture
from detkit.export.formats.folding import folded
from detkit.export.formats.graph import ExportGraph
from detkit.export.formats.onnx_layers import module_path, with_names
from detkit.export.int8.layer_loss import rank_layers
from detkit.inference.exported_detector import as_taken
from detkit.inference.predictor import Predictor

SHOWN = 3
LEAST_ERROR = 1e-4  # relative; rounding of float32 alone gives about 1e-6


def differing_layers(network: nn.Module, model: onnx.ModelProto, batch: np.ndarray) -> list[tuple[str, float]]:
    """Relative error of each convolution and linear layer, worst first.

    Each module is given what its node of the graph was given, so that a layer answers for itself and not for those
    before it. Its error is that of the node's output: the root of the sum of squares, over that of the module's output.

    Args:
        network: that the graph was made of, with the same layers folded, on the CPU.
        model: with the module's path at each node.
        batch: for the graph's input.
    """
    model = with_names(model)
    nodes = list(_nodes_with_modules(model, network))
    wanted = dict.fromkeys(name for node, _, _ in nodes for name in (node.input[0], node.output[0]))
    values = _values(model, list(wanted), batch)
    errors: dict[str, float] = defaultdict(float)
    for node, path, module in nodes:
        given, got = (values[name].astype(np.float32) for name in (node.input[0], node.output[0]))
        errors[path] = max(errors[path], _error(_expected(module, node, given), got))
    return sorted(errors.items(), key=lambda pair: -pair[1])


def culprits(
    reference: Predictor, form: Form, model: onnx.ModelProto, before: onnx.ModelProto | None, images: Tensor
) -> str:
    """Which layers are to blame, for a message.

    Args:
        reference: that was exported.
        form: of the export.
        model: the graph of the export.
        before: the graph before its layers were rounded to int8; None: they are compared with those of torch.
        images: (B, 3, H, W) in [0, 1].
    """
    batch = as_taken(images[: 1 if form.dynamic == "none" else 2], form.takes_uint8)
    if before is not None:
        return spelt(rank_layers(before, model, [batch]))
    graph = ExportGraph(folded(reference.detector), reference.decode, "raw", form.takes_uint8)
    capture(graph, form.image_hw, "none", getattr(reference.detector, "largest_stride", 1))  # folds its norms
    return spelt(differing_layers(graph.detector, model, batch))


def spelt(errors: Sequence[tuple[str, float]]) -> str:
    """The worst of them, for a message."""
    worst = [f"{path} ({100 * error:.3g} %)" for path, error in errors[:SHOWN] if error >= LEAST_ERROR]
    if not worst:
        return "no layer differs on its own: it is the arithmetic between them, or the runtime"
    return f"the layers that differ most are {', '.join(worst)}"


def _nodes_with_modules(model: onnx.ModelProto, network: nn.Module) -> Iterator[tuple[onnx.NodeProto, str, nn.Module]]:
    kinds: dict[str, Any] = {"Conv": nn.Conv2d, "Gemm": nn.Linear, "MatMul": nn.Linear}
    modules = dict(network.named_modules())
    for node in model.graph.node:
        path = module_path(node)
        if node.op_type in kinds and isinstance(modules.get(path), kinds[node.op_type]):
            yield node, path, modules[path]


def _values(model: onnx.ModelProto, names: list[str], batch: np.ndarray) -> dict[str, np.ndarray]:
    """What lies at these places of the graph."""
    given = model.graph.input[0].name
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    del probed.graph.output[:]
    probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name != given)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(probed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    asked = [output.name for output in probed.graph.output]
    found: list[Any] = list(session.run(asked, {given: batch}))
    return {given: batch, **dict(zip(asked, found, strict=True))}


def _expected(module: nn.Module, node: onnx.NodeProto, given: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        output = module(torch.from_numpy(given))
        if node.op_type == "MatMul" and module.bias is not None:  # its bias is added by the next node
            output = output - module.bias
    return output.numpy()


def _error(expected: np.ndarray, got: np.ndarray) -> float:
    if not np.isfinite(expected).all():
        return 0.0  # what is no number came in
    if expected.shape != got.shape or not np.isfinite(got).all():
        return float("inf")
    difference, size = np.linalg.norm(expected - got), np.linalg.norm(expected)
    return float(difference / size) if size else float(difference)
