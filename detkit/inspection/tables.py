"""Tables of the measurements, for 100 columns without colour."""

from collections.abc import Sequence
from math import isnan

from rich.console import Group
from rich.table import Table
from rich.text import Text

from detkit.inspection.measure import Anatomy, Output, Part
from detkit.inspection.weights import Weight

COUNTED = (
    "FLOPs: of convolutions, matrix products and attention; a multiply-add counts as 2.\n"
    "Activations: elements of the outputs of these."
)


def anatomy_table(anatomy: Anatomy, note: str = "") -> Group:
    """The tree of parts with costs and totals, then the outputs of the parts.

    Args:
        anatomy: of a model.
        note: appended to the first line.
    """
    height, width = anatomy.image_hw
    head = f"{anatomy.whole.kind}, one image of {height} x {width} pixels{note}"
    blocks = [Text(f"{head}\n{COUNTED}\n"), _parts_table(anatomy)]
    outputs = _outputs_table(anatomy)
    return Group(*blocks, *([Text(""), outputs] if outputs.rows else []))


def weights_table(weights: Sequence[Weight]) -> Table:
    """One line for each parameter or buffer."""
    table = _table("name", "shape", ">mean", ">std", ">min", ">max", "role")
    for weight in weights:
        numbers = (weight.mean, weight.std, weight.minimum, weight.maximum)
        table.add_row(Text(weight.name), _shape(weight.shape, "x"), *map(_number, numbers), weight.role)
    return table


def _parts_table(anatomy: Anatomy) -> Table:
    table = _table("part", "class", ">params", ">trainable", ">GFLOPs", ">activations", "output")
    for number, part in enumerate(anatomy.parts):
        if part.depth == 0 and number and anatomy.parts[number - 1].depth:
            table.add_section()
        table.add_row(*_row(part, "  " * part.depth + part.name.rpartition(".")[2]))
    table.add_section()
    table.add_row(*_row(anatomy.whole, "total"), style="bold")
    return table


def _row(part: Part, name: str) -> list[Text]:
    trainable = "frozen" if part.parameters and not part.trainable else _short(part.trainable)
    cells = (name, part.kind, _short(part.parameters), trainable, _giga(part.flops), _short(part.activations))
    return [*map(Text, cells), Text(_output_of(part))]


def _output_of(part: Part) -> str:
    if len(part.outputs) != 1:
        what = "levels" if any(output.spec for output in part.outputs) else "tensors"
        return f"{len(part.outputs)} {what}" if part.outputs else ""
    return _shape(part.outputs[0].shape) + (f", {part.calls} calls" if part.calls > 1 else "")


def _outputs_table(anatomy: Anatomy) -> Table:
    """The outputs of the parts that give more than one plain tensor."""
    table = _table("output of", "level", ">stride", "layer", "shape")
    for part in (part for part in (*anatomy.parts, anatomy.whole) if part.depth == 0):
        named = [output for output in part.outputs if output.spec or output.name or len(part.outputs) > 1]
        if part is anatomy.whole and table.rows:
            continue  # equal to the outputs of the last part
        for output in named:
            table.add_row(Text(part.name or "model"), *map(Text, _level_cells(output)), _shape(output.shape))
    return table


def _level_cells(output: Output) -> tuple[str, str, str]:
    spec = output.spec
    if spec is None:
        return output.name, "", ""
    return (spec.level, str(spec.stride), spec.name) if spec.stride else ("vector", "none", spec.name)


def _table(*columns: str) -> Table:
    """A table; columns whose name begins with > hold numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        right = column.startswith(">")
        overflow = "fold" if number == 0 else "ellipsis"
        table.add_column(
            column.lstrip(">"), justify="right" if right else "left", no_wrap=number > 0, overflow=overflow
        )
    return table


def _shape(shape: Sequence[int], times: str = " x ") -> str:
    return times.join(map(str, shape)) or "scalar"


def _short(count: int) -> str:
    """1234567 as 1.23 M."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= factor:
            return f"{count / factor:.{2 if count < 10 * factor else 1}f} {unit}"
    return str(count)


def _giga(flops: int) -> str:
    return "<0.001" if 0 < flops < 5e5 else f"{flops / 1e9:.3f}" if flops else "0"


def _number(value: float) -> str:
    return "-" if isnan(value) else f"{value:.3g}"
