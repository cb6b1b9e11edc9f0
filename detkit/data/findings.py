"""What was found in a data set: errors, which end a run; repairs in memory; notices.

Every check gathers into ``Findings``; the console, the JSON and the HTML report read the same ``Finding``.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn, SupportsInt

from detkit.errors import DataError

Level = Literal["error", "repaired", "notice"]

PLACES_KEPT = 10_000  # of each finding; further ones are only counted
_LONGEST = 500  # letters of a place on the console
_SHOWN = {"error": 10, "repaired": 5, "notice": 5}  # places of a finding on the console


class Place(NamedTuple):
    """Where a finding is: as a text, and as the file and ids that the text names."""

    text: str
    file: str | None = None  # the image's name in the annotations
    image_id: int | None = None
    annotation_id: int | None = None

    def __str__(self) -> str:
        return self.text


class Finding(NamedTuple):
    """All findings of one kind: how many, where, and the remedy."""

    kind: str  # a slug for programs, e.g. "box-outside-image"
    level: Level
    what: str
    number: int
    places: tuple[Place, ...]  # the first PLACES_KEPT
    remedy: str = ""

    def __str__(self) -> str:
        shown = [_printable(place.text) for place in self.places[: _SHOWN[self.level]]]
        more = [f"and {self.number - len(shown):,} more"] if shown and self.number > len(shown) else []
        remedy = f"; {self.remedy}" if self.remedy else ""
        if self.level == "error":
            return "\n    ".join([f"{self.what}: {self.number:,}{remedy}", *shown, *more])
        where = f" ({', '.join(shown + more)})" if shown else ""
        return f"{self.what}: {self.number:,}{where}{remedy}"


def _printable(text: str) -> str:
    """A text without what a terminal would take for a command; it may hold a hostile file name."""
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in cut)


class Report(NamedTuple):
    """What a split holds and what was found in it, to be printed once."""

    summary: str
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        return "\n  ".join([self.summary, *map(str, self.findings)])

    def of_level(self, level: Level) -> list[Finding]:
        """The findings of one level, in the order in which they were made."""
        return [finding for finding in self.findings if finding.level == level]


class UnusableDataError(DataError):
    """Data with errors; ``findings`` holds all that was found until then."""

    def __init__(self, file: Path, findings: Sequence[Finding]) -> None:
        super().__init__(file, findings)
        self.file = file
        self.findings = tuple(findings)

    def __str__(self) -> str:
        errors = [str(finding) for finding in self.findings if finding.level == "error"]
        return "\n  ".join([f"{self.file} cannot be used:", *errors])


class Findings:
    """Collects the findings of one annotation file, or of one folder of images.

    Args:
        file: named in the error.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.found: list[Finding] = []
        self.locate: Callable[[int], str] | None = None  # line or object in a label file of an annotation id

    def error(self, kind: str, what: str, number: SupportsInt, places: Iterable[Place], remedy: str) -> None:
        """Note an error; a number of 0 is ignored."""
        self._add(Finding(kind, "error", what, int(number), (), remedy), places)

    def repaired(self, kind: str, what: str, number: SupportsInt, places: Iterable[Place]) -> None:
        """Note a repair in memory; a number of 0 is ignored."""
        self._add(Finding(kind, "repaired", what, int(number), ()), places)

    def notice(self, kind: str, what: str, number: SupportsInt, places: Iterable[Place], remedy: str = "") -> None:
        """Note what the user should know; a number of 0 is ignored."""
        self._add(Finding(kind, "notice", what, int(number), (), remedy), places)

    def raise_errors(self) -> None:
        """Raise if there is any error.

        Raises:
            UnusableDataError: one for all errors.
        """
        if any(finding.level == "error" for finding in self.found):
            raise UnusableDataError(self.file, self.found)

    def fail(self, kind: str, what: str, place: str, remedy: str) -> NoReturn:
        """Note an error after which reading cannot go on, and raise.

        Raises:
            UnusableDataError: one for all errors.
        """
        self.error(kind, what, 1, (Place(place),), remedy)
        raise UnusableDataError(self.file, self.found)

    def _add(self, finding: Finding, places: Iterable[Place]) -> None:
        if finding.number:
            self.found.append(finding._replace(places=tuple(map(self._located, islice(places, PLACES_KEPT)))))

    def _located(self, place: Place) -> Place:
        if self.locate is None or place.annotation_id is None:
            return place
        return place._replace(text=f"{place.text} ({self.locate(place.annotation_id)})")
