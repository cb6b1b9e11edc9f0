"""Collect faults of a recipe and raise them together."""

from collections.abc import Callable

from detkit.errors import RecipeError

SHOWN = 10


class Faults:
    """The faults of a recipe, one line each, without repetition.

    Args:
        source: place to the file and line, or the command line, that sets its value; None: unknown.
    """

    def __init__(self, source: Callable[[str], str] | None = None) -> None:
        self.source = source
        self.lines: list[str] = []

    def add(self, place: str, message: str) -> None:
        """Add a fault."""
        line = f"{place}: {message}" + (f" ({self.source(place)})" if self.source else "")
        if line not in self.lines:
            self.lines.append(line)

    def error(self, where: str) -> RecipeError:
        """All faults as one error; ``where`` names what was checked."""
        if len(self.lines) == 1:
            return RecipeError(self.lines[0])
        more = [f"... and {len(self.lines) - SHOWN} more"] if len(self.lines) > SHOWN else []
        listed = "".join(f"\n  {line}" for line in [*self.lines[:SHOWN], *more])
        return RecipeError(f"{len(self.lines)} faults in {where}:{listed}")

    def raise_if_any(self, where: str) -> None:
        """Raise all faults as one error."""
        if self.lines:
            raise self.error(where)
