"""The result of the data check on the console and as JSON."""

import json
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.text import Text

from detkit.data.checking.check import CheckedSplit
from detkit.data.findings import Level

_HEADINGS: tuple[tuple[Level, str, str], ...] = (
    ("error", "errors", "bold red"),
    ("repaired", "repaired in memory, your files stay as they are", "yellow"),
    ("notice", "notices", "cyan"),
)


def show(splits: Mapping[str, CheckedSplit], console: Console, html: Path | None = None) -> None:
    """Print each split with its findings by level, then the path of the report, and the verdict."""
    for split in splits.values():
        console.print(Text.assemble((f"{split.name}  ", "bold"), split.report.summary), soft_wrap=True)
        for level, heading, style in _HEADINGS:
            if found := split.report.of_level(level):
                console.print(Text(f"  {heading}", style))
                for finding in found:
                    console.print(Text(f"    {finding}".replace("\n", "\n    ")), soft_wrap=True)
        console.print()
    if html:
        console.print(Text(f"report: {html}"), soft_wrap=True)
    bad = [name for name, split in splits.items() if split.index is None]
    verdict = f"cannot be used: {', '.join(bad)}" if bad else f"no errors in {', '.join(splits)}"
    console.print(Text(verdict, "bold red" if bad else "bold green"), soft_wrap=True)


def to_json(splits: Mapping[str, CheckedSplit]) -> str:
    """The splits and their findings as JSON, with every place that is stored."""
    return json.dumps({name: _plain(split) for name, split in splits.items()}, indent=1)


def _plain(split: CheckedSplit) -> dict[str, object]:
    return {
        "annotations": str(split.annotations),
        "images": str(split.images),
        "usable": split.index is not None,
        "summary": split.report.summary,
        "findings": [
            finding._asdict() | {"places": [place._asdict() for place in finding.places]}
            for finding in split.report.findings
        ],
    }
