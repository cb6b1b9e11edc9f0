"""What came out of the measurements, and tables of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from detkit.benchmark.measure.stopwatch import Look
from detkit.benchmark.measure.summary import Summary, summarise
from detkit.benchmark.selection import Setting

BASE = "eager"  # others are compared with it


class Row:
    """A detector in one runtime and one setting.

    Args:
        name: of the runtime, or the file that was given.
        title: in tables.
        path: of the file that is opened.
        setting: of it.
        reason: why it is not measured, or no further; empty: it is.
        inside: what of the work after the network is part of it.

    Attributes:
        rounds: looks of each.
        costs: ``first_s``, ``file_mb``, ``imports_mb`` and ``memory_mb``, as far as they are known.
        numbers: the twelve of COCO, where they are measured.
        is_done: whether nothing more is going to be measured.
    """

    def __init__(self, name: str, title: str, path: Path, setting: Setting, reason: str = "", inside: str = "") -> None:
        self.name = name
        self.title = title
        self.path = path
        self.setting = setting
        self.reason = reason
        self.inside = inside
        self.rounds: list[list[Look]] = []
        self.costs: dict[str, float] = {}
        self.numbers: dict[str, float] = {}
        self.is_done = False

    def summary(self) -> Summary | None:
        """The looks as few numbers; None: there are none."""
        return summarise(self.rounds, self.setting.batch_size) if self.rounds else None

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        summary = self.summary()
        return {
            "runtime": self.name,
            **self.setting._asdict(),
            "reason": self.reason,
            "inside": self.inside,
            **(summary._asdict() if summary else {}),
            **self.costs,
            "numbers": self.numbers,
            "rounds": self.rounds,
        }


class Sheet(NamedTuple):
    """A table for the terminal and for Markdown; the last column holds words."""

    title: str
    headings: Sequence[str]
    lines: Sequence[Sequence[str]]

    def to_rich(self) -> Group:
        """For a terminal, where the last column would be too narrow: it becomes lines below the table."""
        table = Table(box=None, padding=(0, 2, 0, 0), title=Text(self.title, style="bold"), title_justify="left")
        for number, heading in enumerate(self.headings[:-1]):
            table.add_column(heading, justify="right" if number else "left", no_wrap=True)
        for line in self.lines:
            table.add_row(*map(Text, line[:-1]))
        return Group(table, *(Text(f"{line[0]}: {line[-1]}") for line in self.lines if line[-1]))

    def to_markdown(self) -> str:
        """With its title above it."""
        rule = ["---", *["---:"] * (len(self.headings) - 2), "---"]
        lines = [self.headings, rule, *([cell.replace("|", "\\|") for cell in line] for line in self.lines)]
        return "\n".join([f"**{self.title}**", "", *(f"| {' | '.join(line)} |" for line in lines)])


SPEED = ("runtime", "latency ms", "p95", "images/s", "x eager", "cores", "memory MB", "file MB", "AP", "")
PHASES = ("runtime", "read", "resize", "network", "boxes", "whole ms", "p95", "outside network", "")


def speed_sheet(setting: Setting, rows: Sequence[Row]) -> Sheet:
    """The rows of one setting beside each other."""
    base = next((row.summary() for row in rows if row.name == BASE), None)
    return Sheet(str(setting), SPEED, [_speed_line(row, base) for row in rows])


def phase_sheet(setting: Setting, rows: Sequence[Row]) -> Sheet:
    """Where the time goes, in milliseconds."""
    lines = [_phase_line(row) for row in rows if row.rounds]
    return Sheet(f"{setting}: milliseconds from the image file to the boxes", PHASES, lines)


def _speed_line(row: Row, base: Summary | None) -> list[str]:
    summary, costs = row.summary(), row.costs
    if summary is None:
        return [row.title, *["-"] * (len(SPEED) - 2), _why(row)]
    return [
        row.title,
        f"{summary.latency_ms:.1f}",
        f"{summary.p95_ms:.1f}",
        f"{summary.images_per_s:.1f}",
        f"{base.latency_ms / summary.latency_ms:.2f}" if base else "-",
        f"{summary.cores:.2f}",
        f"{costs['memory_mb']:.0f}" if "memory_mb" in costs else "-",
        f"{costs['file_mb']:.1f}",
        f"{row.numbers['AP']:.4f}" if "AP" in row.numbers else "-",
        _why(row),
    ]


def _why(row: Row) -> str:
    if not row.reason:
        return ""
    return f"{'stopped' if row.rounds else 'not measured'}: {row.reason}"


def _phase_line(row: Row) -> list[str]:
    summary = row.summary()
    assert summary, "rows without looks were left out"
    phases = (summary.read_ms, summary.resize_ms, summary.network_ms, summary.boxes_ms)
    wholes = (summary.whole_ms, summary.whole_p95_ms)
    numbers = [f"{number:.1f}" for number in (*phases, *wholes)]
    return [row.title, *numbers, f"{100 * summary.outside_frac:.1f} %", row.inside]
