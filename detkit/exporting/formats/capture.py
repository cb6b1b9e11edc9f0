"""Capture of a detector with torch.export, the first step of every format."""

import torch
from torch.export import ExportedProgram

from detkit.errors import ExportError
from detkit.exporting.converter_logs import silenced
from detkit.exporting.formats.folding import fold_norms
from detkit.exporting.formats.graph import ExportGraph
from detkit.inference.runtimes.forms import Dynamic


def capture(graph: ExportGraph, image_hw: tuple[int, int], dynamic: Dynamic, largest_stride: int) -> ExportedProgram:
    """Capture the graph after its batch norms are folded in place.

    Args:
        graph: on the CPU; changed in place.
        image_hw: image size; with dynamic="size" an example.
        dynamic: which dimensions may vary.
        largest_stride: image sides are multiples of it.

    Raises:
        ExportError: if torch.export cannot capture the model, e.g. because Python code branches on tensor values.
    """
    example = graph.example(image_hw, dynamic)
    fold_norms(graph, _captured(graph, (example,)))
    return _captured(graph, (example,), graph.dynamic_shapes(dynamic, largest_stride))


def _captured(
    graph: ExportGraph, example: tuple[torch.Tensor], shapes: dict[str, object] | None = None
) -> ExportedProgram:
    try:
        with silenced(), torch.no_grad():
            return torch.export.export(graph, example, dynamic_shapes=shapes)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise ExportError(f"torch.export cannot capture {type(graph.detector).__name__}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The first line of torch's message, and the line of the model that it names."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    places = [line for line in lines if line.startswith("File ") and "site-packages/torch/" not in line]
    remedy = "; write what depends on tensor values with tensor operations, e.g. torch.where"
    return f"{lines[0] if lines else type(error).__name__}{f' ({places[-1]})' if places else ''}{remedy}"
