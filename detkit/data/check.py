"""The data check: all splits of a run read, checked and compared, and what was found in each."""

from dataclasses import dataclass
from pathlib import Path

from detkit.data.coco import CocoIndex, load_index
from detkit.data.findings import Report, UnusableDataError
from detkit.data.layout import Split


@dataclass(frozen=True)
class CheckedSplit:
    """One split after its check."""

    name: str  # train, val or test
    index: CocoIndex | None  # none where the report has an error
    report: Report
    annotations: Path
    images: Path


def check_splits(splits: dict[str, Split]) -> dict[str, CheckedSplit]:
    """Read and check every split; what is wrong with one does not keep the others from being read."""
    return {name: _check(name, split) for name, split in splits.items()}


def _check(name: str, split: Split) -> CheckedSplit:
    try:
        index = load_index(split.annotations, split.images)
    except UnusableDataError as error:
        return CheckedSplit(name, None, Report(f"{error.file}: cannot be used", error.findings), *split)
    return CheckedSplit(name, index, index.report, *split)
