"""The help of a command: its docstring, and a table of its options."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from detkit.recipe.options import describe, options_of
from detkit.recipe.show import console, make_table, meanings_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

OBVIOUS_TYPES = ("text", "a path")


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether the arguments ask for the help of a command."""
    return "-h" in argv or "--help" in argv


def print_help(usage: str | None, options: "type[DataclassInstance]") -> None:
    """Print the docstring of a command and the table of its options."""
    output = console()
    output.print(Text(usage or ""), soft_wrap=True)
    output.print(list_options(options))


def list_options(cls: "type[DataclassInstance]") -> Table:
    """A table of all keys with default, meaning and type."""
    table = make_table("key", "default", "meaning")
    for option in options_of(cls):
        default = "must be given" if option.is_needed else default_text(option.default)
        meaning = meanings_of(option.owner).get(option.key.rpartition(".")[2], "")
        takes = describe(option.annotation)
        if takes not in OBVIOUS_TYPES:
            meaning = f"{meaning} ({takes})"
        table.add_row(Text(option.key, style="bold"), Text(default), Text(meaning))
    return table


def default_text(value: Any) -> str:
    """The default of an option in the form of the command line."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
