"""A detector as a program that torch captured: the common start of all formats."""

import torch
from torch.export import ExportedProgram

from detkit.errors import ExportError
from detkit.export.converter_logs import quiet
from detkit.export.formats.folding import fold_norms
from detkit.export.formats.graph import ExportGraph
from detkit.inference.runtimes.forms import Dynamic


def capture(graph: ExportGraph, image_hw: tuple[int, int], dynamic: Dynamic, largest_stride: int) -> ExportedProgram:
    """Capture the graph, whose batch norms are folded by that, in place.

    Args:
        graph: on the CPU.
        image_hw: size of its images; with dynamic="size" an example of it.
        dynamic: what may vary.
        largest_stride: sides are multiples of it.

    Raises:
        ExportError: if the model decides in Python what depends on the values of tensors, or the like.
    """
    example = graph.example(image_hw, dynamic)
    fold_norms(graph, _captured(graph, (example,)))
    return _captured(graph, (example,), graph.dynamic_shapes(dynamic, largest_stride))


def _captured(
    graph: ExportGraph, example: tuple[torch.Tensor], shapes: dict[str, object] | None = None
) -> ExportedProgram:
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(graph, example, dynamic_shapes=shapes)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise ExportError(f"torch.export cannot capture {type(graph.detector).__name__}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What torch says of it, where it names the line of the model that it cannot follow."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    places = [line for line in lines if line.startswith("File ") and "site-packages/torch/" not in line]
    remedy = "; what depends on the values of tensors must be written with tensor operations, e.g. torch.where"
    return f"{lines[0] if lines else type(error).__name__}{f' ({places[-1]})' if places else ''}{remedy}"
