"""Says at the end of a run of pytest what the tests of each folder cost: ``-p tests.helpers.costs``.

The seconds are those of setup, call and teardown by the clock, so they mean something on a quiet machine only. A file
beside the folders of tests is a row of its own.
"""

from collections import Counter
from pathlib import PurePosixPath

import pytest

SECONDS: dict[str, float] = {}
TESTS: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Called where the reports of all processes come together."""
    place = PurePosixPath(report.nodeid.partition("::")[0]).parts[1]
    SECONDS[place] = SECONDS.get(place, 0.0) + report.duration
    TESTS[place] += report.when == "call"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The dearest first, as a table of Markdown."""
    terminalreporter.write_line("| part of tests/ | tests | seconds |\n|---|---|---|")
    for place, seconds in sorted(SECONDS.items(), key=lambda cost: -cost[1]):
        terminalreporter.write_line(f"| {place} | {TESTS[place]} | {seconds:.0f} |")
    terminalreporter.write_line(f"| all | {TESTS.total()} | {sum(SECONDS.values()):.0f} |")
