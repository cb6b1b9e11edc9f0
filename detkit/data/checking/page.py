"""The data check as one HTML file: the contents of each split, its findings with pictures, and figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from detkit.data.checking.check import CheckedSplit
from detkit.data.checking.pictures import Picture, PictureMaker
from detkit.data.findings import Finding, Level
from detkit.reports.figures import Border, colour_of_split, histogram, place_map
from detkit.reports.page import write_page
from detkit.types import GroundTruth

MAX_PICTURE_BYTES = 12_000_000
PLACES_SHOWN = 100  # of each finding
CLASSES_SHOWN = 100
_LEVELS: dict[Level, str] = {"error": "errors", "repaired": "repaired in memory", "notice": "notices"}
_SIZE_TICKS = (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
_ASPECT_TICKS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16)
_SMALL_PX, _MEDIUM_PX = 32, 96  # COCO's limits for the root of the area


class _Contents(NamedTuple):
    """Counts of a usable split."""

    images: int
    boxes: int
    most_boxes: int  # in one image
    classes: int
    size_percents: tuple[float, ...]  # of the boxes: small, medium, large


class _Split(NamedTuple):
    """A split for the template."""

    name: str
    colour: str
    annotations: Path
    contents: _Contents | None  # None: not usable
    findings: list[tuple[Finding, list[Picture]]]  # errors first

    def count(self, level: Level) -> int:
        return sum(finding.number for finding, _ in self.findings if finding.level == level)


class _Map(NamedTuple):
    """A map of the box centres of a split."""

    name: str
    colour: str
    uri: str


class _Bar(NamedTuple):
    """The number of boxes of a class in a split."""

    number: int
    share: float  # of the number in the split's most frequent class
    colour: str


def write_html(path: str | Path, splits: Mapping[str, CheckedSplit]) -> None:
    """Write the report of all splits.

    Args:
        path: of the file, replaced if it exists.
        splits: as the check gives them; of a split that cannot be used only the findings are shown.

    Raises:
        StorageError: if the file cannot be written.
    """
    maker = PictureMaker(MAX_PICTURE_BYTES)
    shown = [_describe(split, maker) for split in splits.values()]
    usable = {split.name: split.index.ground_truth() for split in splits.values() if split.index is not None}
    write_page(
        path,
        "data_check.html",
        levels=_LEVELS,
        splits=shown,
        errors={split.name: number for split in shown if (number := split.count("error"))},
        histograms=_histograms(usable),
        maps=[_Map(name, colour_of_split(name), place_map(_centres_norm(truth))) for name, truth in usable.items()],
        classes=_class_bars(usable),
        places_shown=PLACES_SHOWN,
        classes_shown=CLASSES_SHOWN,
    )


def _describe(split: CheckedSplit, maker: PictureMaker) -> _Split:
    findings = [finding for level in _LEVELS for finding in split.report.of_level(level)]
    return _Split(
        split.name,
        colour_of_split(split.name),
        split.annotations,
        None if split.index is None else _count(split.index.ground_truth()),
        [(finding, maker.pictures_of(finding, split)) for finding in findings],
    )


def _count(truth: GroundTruth) -> _Contents:
    per_image = np.bincount(truth.image_rows, minlength=len(truth.image_ids))
    per_size, _ = np.histogram(_sides(truth), (0, _SMALL_PX, _MEDIUM_PX, np.inf))
    percents = 100 * per_size / max(len(truth.labels), 1)
    return _Contents(
        len(truth.image_ids), len(truth.labels), int(per_image.max()), len(truth.class_names), tuple(percents.tolist())
    )


def _histograms(usable: Mapping[str, GroundTruth]) -> list[Markup]:
    sides = {name: _sides(truth) for name, truth in usable.items()}
    aspects = {name: _aspects(truth) for name, truth in usable.items()}
    sizes = (Border(_SMALL_PX, "small"), Border(_MEDIUM_PX, "medium"))
    return [
        histogram("size: root of the area, px", sides, _SIZE_TICKS, sizes),
        histogram("aspect: width / height", aspects, _ASPECT_TICKS, (Border(1, "taller than wide"),)),
    ]


def _class_bars(usable: Mapping[str, GroundTruth]) -> list[tuple[str, list[_Bar]]]:
    """For each class a bar for each split; the most frequent classes come first."""
    counts: dict[str, dict[str, int]] = {}
    for split, truth in usable.items():
        per_class = np.bincount(truth.labels, minlength=len(truth.class_names)).tolist()
        for name, number in zip(truth.class_names, per_class, strict=True):
            per_split = counts.setdefault(name, dict.fromkeys(usable, 0))
            per_split[split] += number
    highest = {split: max(1, *(numbers[split] for numbers in counts.values())) for split in usable}
    return [
        (name, [_Bar(number, number / highest[split], colour_of_split(split)) for split, number in numbers.items()])
        for name, numbers in sorted(counts.items(), key=lambda item: -sum(item[1].values()))
    ]


def _sides(truth: GroundTruth) -> np.ndarray:
    """(N,) root of each box's area; 0 for a box without area."""
    return np.sqrt(np.maximum(truth.boxes_xywh[:, 2:], 0).prod(axis=1))


def _aspects(truth: GroundTruth) -> np.ndarray:
    """(N,) width divided by height, of the boxes with an area."""
    sizes = truth.boxes_xywh[(truth.boxes_xywh[:, 2:] > 0).all(axis=1), 2:]
    return sizes[:, 0] / sizes[:, 1]


def _centres_norm(truth: GroundTruth) -> np.ndarray:
    """(N, 2) x and y of each box's centre, divided by the width and height of its image."""
    centres = truth.boxes_xywh[:, :2] + truth.boxes_xywh[:, 2:] / 2
    return centres / truth.sizes_hw[truth.image_rows][:, ::-1]
