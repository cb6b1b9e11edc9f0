"""The results of a benchmark, and tables of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from detkit.benchmark.measure.stopwatch import BatchTiming
from detkit.benchmark.measure.summary import Summary, summarise
from detkit.benchmark.selection import Setting

BASELINE = "eager"  # the runtime that others are compared with


class Row:
    """A detector in one runtime and one setting.

    Args:
        name: of the runtime, or the exported file that the user named.
        title: in tables.
        path: of the opened file.
        setting: threads, image size and batch size.
        reason: why it is not measured, or why its measurement stopped; empty if it is complete.
        inside: which work after the network is part of the file.

    Attributes:
        rounds: the timed batches of each round.
        costs: the known ones of ``first_s``, ``file_mb``, ``imports_mb`` and ``memory_mb``.
        numbers: the twelve COCO numbers if AP is measured.
        is_done: whether its measurement is finished.
    """

    def __init__(self, name: str, title: str, path: Path, setting: Setting, reason: str = "", inside: str = "") -> None:
        self.name = name
        self.title = title
        self.path = path
        self.setting = setting
        self.reason = reason
        self.inside = inside
        self.rounds: list[list[BatchTiming]] = []
        self.costs: dict[str, float] = {}
        self.numbers: dict[str, float] = {}
        self.is_done = False

    def summary(self) -> Summary | None:
        """Statistics of the timed batches; None without any."""
        return summarise(self.rounds, self.setting.batch_size) if self.rounds else None

    def to_json(self) -> dict[str, object]:
        """Everything about the row, as JSON values."""
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


class ResultTable(NamedTuple):
    """A table for the terminal and for Markdown; its last column holds remarks."""

    title: str
    headings: Sequence[str]
    lines: Sequence[Sequence[str]]

    def to_rich(self) -> Group:
        """The table for a terminal, with the remarks as lines below it."""
        table = Table(box=None, padding=(0, 2, 0, 0), title=Text(self.title, style="bold"), title_justify="left")
        for number, heading in enumerate(self.headings[:-1]):
            table.add_column(heading, justify="right" if number else "left", no_wrap=True)
        for line in self.lines:
            table.add_row(*map(Text, line[:-1]))
        return Group(table, *(Text(f"{line[0]}: {line[-1]}") for line in self.lines if line[-1]))

    def to_markdown(self) -> str:
        """The table in Markdown, below its title."""
        rule = ["---", *["---:"] * (len(self.headings) - 2), "---"]
        lines = [self.headings, rule, *([cell.replace("|", "\\|") for cell in line] for line in self.lines)]
        return "\n".join([f"**{self.title}**", "", *(f"| {' | '.join(line)} |" for line in lines)])


SPEED = ("runtime", "latency ms", "p95", "images/s", "x eager", "cores", "memory MB", "file MB", "AP", "")
PHASES = ("runtime", "read", "resize", "network", "boxes", "whole ms", "p95", "outside network", "")


def speed_table(setting: Setting, rows: Sequence[Row]) -> ResultTable:
    """Latency, memory, size and AP of the rows of one setting."""
    base = next((row.summary() for row in rows if row.name == BASELINE), None)
    return ResultTable(str(setting), SPEED, [_speed_line(row, base) for row in rows])


def phase_table(setting: Setting, rows: Sequence[Row]) -> ResultTable:
    """Milliseconds of each phase of the rows of one setting."""
    lines = [_phase_line(row) for row in rows if row.rounds]
    return ResultTable(f"{setting}: milliseconds from the image file to the boxes", PHASES, lines)


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
    assert summary, "rows without timings are left out"
    phases = (summary.read_ms, summary.resize_ms, summary.network_ms, summary.boxes_ms)
    wholes = (summary.whole_ms, summary.whole_p95_ms)
    numbers = [f"{number:.1f}" for number in (*phases, *wholes)]
    return [row.title, *numbers, f"{100 * summary.outside_frac:.1f} %", row.inside]
