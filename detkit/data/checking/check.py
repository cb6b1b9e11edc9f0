"""The data check: reads, checks and compares all splits of a run."""

from dataclasses import dataclass, replace
from pathlib import Path

from detkit.data.checking.across_splits import compare_splits
from detkit.data.checking.decode_all import decode_all
from detkit.data.findings import Findings, Place, Report, UnusableDataError
from detkit.data.formats.layout import Split
from detkit.data.index.coco_index import CocoIndex, load_index
from detkit.errors import DataError


@dataclass(frozen=True)
class CheckedSplit:
    """One split after its check."""

    name: str  # train, val or test
    index: CocoIndex | None  # None if the report has an error
    report: Report
    annotations: Path
    images: Path

    def plus(self, findings: Findings) -> "CheckedSplit":
        """The split with further findings."""
        report = self.report._replace(findings=(*self.report.findings, *findings.found))
        usable = None if self.index is None or report.of_level("error") else replace(self.index, report=report)
        return replace(self, report=report, index=usable)

    def error(self) -> UnusableDataError:
        """All errors of the split as one."""
        return UnusableDataError(self.annotations, self.report.findings)


def check_splits(
    splits: dict[str, Split], root: str | Path | None = None, *, follow_links: bool = False, decode: bool = False
) -> dict[str, CheckedSplit]:
    """Read, check and compare the splits. All splits are read even if one has errors.

    Args:
        splits: by name.
        root: of the data set; an image outside it is an error. None: the split's folder of images.
        follow_links: whether symbolic links may lead out of the root.
        decode: whether every image file of the splits without errors is decoded.
    """
    checked = {name: _read(name, split, root, follow_links) for name, split in splits.items()}
    indices = {name: split.index for name, split in checked.items() if split.index is not None}
    found = {name: Findings(checked[name].annotations) for name in indices}
    compare_splits(indices, found)
    if decode:
        for name, index in indices.items():
            decode_all(index.folder, index.file_names(), index.image_ids, index.sizes_hw, found[name])
    return {name: split.plus(found[name]) if name in found else split for name, split in checked.items()}


def _read(name: str, split: Split, root: str | Path | None, follow_links: bool) -> CheckedSplit:
    findings = Findings(split.annotations)
    try:
        index = load_index(*split, root, follow_links=follow_links)
    except UnusableDataError as error:
        findings.found.extend(error.findings)
    except DataError as error:
        findings.error("data-unreadable", "data that cannot be read", 1, (Place(str(error)),), "correct what is named")
    else:
        return CheckedSplit(name, index, index.report, *split)
    return CheckedSplit(name, None, Report(f"{split.annotations}: cannot be used", tuple(findings.found)), *split)
