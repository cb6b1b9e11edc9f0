"""The help of a command: its docstring, and a table of its options made from their class."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from detkit.recipe.options import describe, options_of
from detkit.recipe.show import console, make_table, meanings_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SAYS_LITTLE = ("text", "a path")


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether the arguments ask for the help of a command."""
    return "-h" in argv or "--help" in argv


def print_help(usage: str | None, options: "type[DataclassInstance]") -> None:
    """Print the docstring of a command, and every option with its default, its meaning and what it takes."""
    output = console()
    output.print(Text(usage or ""), soft_wrap=True)
    output.print(list_options(options))


def list_options(cls: "type[DataclassInstance]") -> Table:
    """Every key with its default, its meaning and what it takes."""
    table = make_table("key", "default", "meaning")
    for option in options_of(cls):
        default = "must be given" if option.is_needed else spell(option.default)
        meaning = meanings_of(option.owner).get(option.key.rpartition(".")[2], "")
        takes = describe(option.annotation)
        if takes not in SAYS_LITTLE:
            meaning = f"{meaning} ({takes})"
        table.add_row(Text(option.key, style="bold"), Text(default), Text(meaning))
    return table


def spell(value: Any) -> str:
    """The default of an option as it can be typed."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
