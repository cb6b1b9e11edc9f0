"""The data check: all splits of a run read, checked and compared, and what was found in each."""

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
    index: CocoIndex | None  # none where the report has an error
    report: Report
    annotations: Path
    images: Path

    def plus(self, findings: Findings) -> "CheckedSplit":
        """The split, in which more was found."""
        report = self.report._replace(findings=(*self.report.findings, *findings.found))
        usable = None if self.index is None or report.of_level("error") else replace(self.index, report=report)
        return replace(self, report=report, index=usable)

    def error(self) -> UnusableDataError:
        """All errors of the split as one."""
        return UnusableDataError(self.annotations, self.report.findings)


def check_splits(
    splits: dict[str, Split], root: str | Path | None = None, *, follow_links: bool = False, decode: bool = False
) -> dict[str, CheckedSplit]:
    """Read, check and compare the splits; what is wrong with one does not keep the others from being read.

    Args:
        splits: by name.
        root: of the data set, which no image may lie outside of; None: its folder of images.
        follow_links: whether symbolic links may lead out of there.
        decode: whether every image file is decoded, of the splits without errors.
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
        findings.error("data-unreadable", "data that cannot be read", 1, (Place(str(error)),), "mend what is named")
    else:
        return CheckedSplit(name, index, index.report, *split)
    return CheckedSplit(name, None, Report(f"{split.annotations}: cannot be used", tuple(findings.found)), *split)
