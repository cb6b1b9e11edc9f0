"""What was found in a data set: faults, which end the run together, and oddities, which are told."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from detkit.errors import DataError

FAULTS_NAMED = 10
ODDITIES_NAMED = 5


class Fault(NamedTuple):
    """One kind of fault: how many there are, the first of them by name, and what mends them."""

    what: str
    number: int
    places: tuple[str, ...]
    remedy: str

    def __str__(self) -> str:
        more = (f"and {self.number - len(self.places):,} more",) if self.number > len(self.places) else ()
        return "\n    ".join([f"{self.what}: {self.number:,}; {self.remedy}", *self.places, *more])


class Oddity(NamedTuple):
    """One kind of oddity, which is no fault: how many there are, and the first of them by name."""

    what: str
    number: int
    places: tuple[str, ...]

    def __str__(self) -> str:
        more = f", and {self.number - len(self.places):,} more" if self.number > len(self.places) else ""
        where = f" ({', '.join(self.places)}{more})" if self.places else ""
        return f"{self.what}: {self.number:,}{where}"


class Report(NamedTuple):
    """What a split holds and what is odd in it: ``print`` it once."""

    summary: str
    oddities: tuple[Oddity, ...]

    def __str__(self) -> str:
        return "\n  ".join([self.summary, *map(str, self.oddities)])


class Findings:
    """Gathers the findings of one annotation file.

    Args:
        file: named in the error.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.faults: list[Fault] = []
        self.oddities: list[Oddity] = []

    def fault(self, what: str, number: int, places: Iterable[str], remedy: str) -> None:
        """Note what must be mended; a number of 0 is no fault."""
        if number:
            self.faults.append(Fault(what, number, tuple(islice(places, FAULTS_NAMED)), remedy))

    def oddity(self, what: str, number: int, places: Iterable[str]) -> None:
        """Note what the user should know; a number of 0 is not odd."""
        if number:
            self.oddities.append(Oddity(what, number, tuple(islice(places, ODDITIES_NAMED))))

    def raise_faults(self) -> None:
        """End here if there is any fault.

        Raises:
            DataError: one for all faults.
        """
        if self.faults:
            raise DataError("\n  ".join([f"{self.file} cannot be used:", *map(str, self.faults)]))
