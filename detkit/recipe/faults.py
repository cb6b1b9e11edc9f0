"""Faults are gathered and raised together, each with its place, who wrote it and the nearest valid word."""

from collections.abc import Callable

from detkit.errors import RecipeError

SHOWN = 10


class Faults:
    """What is wrong with a recipe, one line each, without repetition.

    Args:
        source: says who wrote what is at a place; None: nobody asks.
    """

    def __init__(self, source: Callable[[str], str] | None = None) -> None:
        self.source = source
        self.lines: list[str] = []

    def add(self, place: str, message: str) -> None:
        """Note a fault."""
        line = f"{place}: {message}" + (f" ({self.source(place)})" if self.source else "")
        if line not in self.lines:
            self.lines.append(line)

    def error(self, where: str) -> RecipeError:
        """All of them as one error; ``where`` says in what they were found."""
        if len(self.lines) == 1:
            return RecipeError(self.lines[0])
        more = [f"... and {len(self.lines) - SHOWN} more"] if len(self.lines) > SHOWN else []
        listed = "".join(f"\n  {line}" for line in [*self.lines[:SHOWN], *more])
        return RecipeError(f"{len(self.lines)} faults in {where}:{listed}")

    def raise_if_any(self, where: str) -> None:
        """Raise that error unless all is well."""
        if self.lines:
            raise self.error(where)
