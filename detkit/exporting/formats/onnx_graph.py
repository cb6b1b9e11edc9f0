"""From a captured program to an ONNX graph, with torch's exporter."""

import re
from collections.abc import Sequence

import onnx
import torch
from torch.export import ExportedProgram

from detkit.errors import ExportError
from detkit.exporting.converter_logs import silenced
from detkit.exporting.formats.folding import module_path

OPSET = 20  # the first whose GridSample serves DETR-type detectors in all runtimes


def to_onnx(program: ExportedProgram, output_names: Sequence[str]) -> onnx.ModelProto:
    """The ONNX graph with its weights.

    Args:
        program: with one input.
        output_names: in the order of the program's outputs.

    Raises:
        ExportError: if ONNX lacks an operator of the program; the error names the modules that call it.
    """
    try:
        with silenced(), torch.no_grad():
            converted = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=["images"],
                output_names=list(output_names),
                opset_version=OPSET,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(_reason(program, error)) from error
    assert converted, "torch.onnx.export gives a program if dynamo=True"
    return converted.model_proto


def _reason(program: ExportedProgram, error: BaseException) -> str:
    """Which operator cannot be converted, and which modules call it."""
    message = "\n".join(map(str, _causes(error)))
    found = re.search(r"No ONNX function found for <OpOverload\(op='([\w.:]+)', overload='(\w+)'\)", message)
    if not found:
        return f"the ONNX exporter of torch fails: {message.strip().splitlines()[0]}"
    name = f"{found[1]}.{found[2]}"
    word = re.split(r"\W+", found[1])[-1]  # a decomposed operator: special_bessel_j0 contains bessel_j0
    nodes = [node for node in program.graph.nodes if node.op == "call_function" and word in str(node.target)]
    places = {module_path(node).removeprefix("detector.") for node in nodes}
    where = f", which {', '.join(sorted(places)[:5])} calls" if places else ""
    return (
        f"ONNX has no operator for {name}{where}: replace it there by other operations, or use format=torch_export, "
        "which keeps every operator of torch"
    )


def _causes(error: BaseException | None) -> Sequence[BaseException]:
    return [error, *_causes(error.__cause__ or error.__context__)] if error else []
