"""The data check as one HTML file: what each split holds, what was found, pictures of it and figures.

The file has no script and asks for nothing: a browser is told so (Content-Security-Policy), and every
text that comes from a data set, which may be hostile, is escaped.
"""

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

import numpy as np

from detkit.data.checking.check import CheckedSplit
from detkit.data.checking.pictures import Picture, PictureMaker
from detkit.data.findings import Finding, Level
from detkit.errors import StorageError
from detkit.reports.figures import Mark, colour_of_split, histogram, place_map
from detkit.reports.style import STYLE
from detkit.types import GroundTruth

MAX_PICTURE_BYTES = 12_000_000
PLACES_SHOWN = 100  # of each finding
CLASSES_SHOWN = 100
_LEVELS: dict[Level, str] = {"error": "errors", "repaired": "repaired in memory", "notice": "notices"}
_SIZE_TICKS = (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
_ASPECT_TICKS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16)
_SMALL_PX, _MEDIUM_PX = 32, 96  # COCO's borders: the root of the area
_HEAD = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width"><title>Data check</title>
<style>{STYLE}</style></head><body><main><h1>Data check</h1>
"""


def write_html(path: str | Path, splits: Mapping[str, CheckedSplit]) -> None:
    """Write the report of all splits.

    Args:
        path: of the file, replaced if it is there.
        splits: as the check gives them; one that could not be read has its findings alone.

    Raises:
        StorageError: if the file cannot be written.
    """
    checked = list(splits.values())
    usable = {split.name: split.index.ground_truth() for split in checked if split.index is not None}
    maker = PictureMaker(MAX_PICTURE_BYTES)
    sections = [
        _verdict(checked),
        _summary(checked),
        *(_findings_section(split, maker) for split in checked),
        *([_figures(usable), _class_table(usable)] if usable else []),
    ]
    body = "\n".join(sections)
    try:
        Path(path).write_text(
            f"{_HEAD}{body}\n</main></body></html>\n", encoding="utf-8", errors="replace"
        )  # a file name may be no Unicode
    except OSError as error:
        raise StorageError(f"{path}: the report cannot be written: {error.strerror}") from error


def _verdict(splits: Iterable[CheckedSplit]) -> str:
    bad = {split.name: sum(finding.number for finding in split.report.of_level("error")) for split in splits}
    named = ", ".join(f"{number:,} in {name}" for name, number in bad.items() if number)
    if named:
        return f'<p class="verdict error"><b>Cannot be used yet.</b> Errors: {escape(named)}.</p>'
    return '<p class="verdict good"><b>Can be used.</b> No error was found.</p>'


def _summary(splits: Iterable[CheckedSplit]) -> str:
    heads = ("split", "images", "boxes", "boxes an image", "classes", "small / medium / large", *_LEVELS.values())
    rows = "".join(f"<tr>{''.join(_cells(split))}</tr>" for split in splits)
    head = "".join(f"<th>{text}</th>" for text in heads)
    table = f'<table class="summary"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<section class="wide">{table}</section>'


def _cells(split: CheckedSplit) -> list[str]:
    place = f'<small class="path">{_user(split.annotations)}</small>'
    name = f"<td>{_key(split.name)}<b>{_user(split.name)}</b>{place}</td>"
    counts = [sum(finding.number for finding in split.report.of_level(level)) for level in _LEVELS]
    found = [
        f'<td class="number {level if count else ""}">{count:,}</td>'
        for level, count in zip(_LEVELS, counts, strict=True)
    ]
    if split.index is None:
        return [name, '<td colspan="5">not counted, because of its errors</td>', *found]
    truth = split.index.ground_truth()
    per_image = np.bincount(truth.image_rows, minlength=len(truth.image_ids))
    sides = _sides(truth)
    small, medium = (sides < _SMALL_PX).sum(), ((sides >= _SMALL_PX) & (sides < _MEDIUM_PX)).sum()
    shares = [100 * count / max(len(sides), 1) for count in (small, medium, len(sides) - small - medium)]
    values = (
        f"{len(truth.image_ids):,}",
        f"{len(truth.labels):,}",
        f"{per_image.mean():.1f} (max {per_image.max():,})",
        f"{len(truth.class_names):,}",
        " / ".join(f"{share:.0f}" for share in shares) + " %",
    )
    return [name, *(f'<td class="number">{value}</td>' for value in values), *found]


def _findings_section(split: CheckedSplit, maker: PictureMaker) -> str:
    found = [_finding(finding, split, maker) for level in _LEVELS for finding in split.report.of_level(level)]
    nothing = "<p>Nothing was found.</p>"
    return f"<section><h2>Found in {_user(split.name)}</h2>{''.join(found) or nothing}</section>"


def _finding(finding: Finding, split: CheckedSplit, maker: PictureMaker) -> str:
    shown = finding.places[:PLACES_SHOWN]
    more = finding.number - len(shown)
    places = "".join(f"<li>{_user(place.text)}</li>" for place in shown)
    rest = f"<p class='more'>and {more:,} more</p>" if places and more > 0 else ""
    remedy = f"<p>{_user(finding.remedy[:1].upper() + finding.remedy[1:])}.</p>" if finding.remedy else ""
    pictures = "".join(map(_figure, maker.pictures_of(finding, split)))
    strip = f'<div class="strip">{pictures}</div>' if pictures else ""
    listed = f"<ul>{places}</ul>{rest}" if places else ""
    return (
        f'<details class="{finding.level}"{"" if finding.level == "notice" and not pictures else " open"}><summary>'
        f'<span class="badge">{finding.level}</span> {_user(finding.what)}: <b>{finding.number:,}</b> '
        f"<code>{_user(finding.kind)}</code></summary>{remedy}{strip}{listed}</details>"
    )


def _figure(picture: Picture) -> str:
    inner = f'<img src="{picture.uri}" alt="">' if picture.uri else f'<p class="missing">{_user(picture.why_not)}</p>'
    return f"<figure>{inner}<figcaption>{_user(picture.text)}</figcaption></figure>"


def _figures(usable: Mapping[str, GroundTruth]) -> str:
    keys = "".join(f"<span>{_key(name)}{_user(name)}</span>" for name in usable)
    sizes = {name: _sides(truth) for name, truth in usable.items()}
    aspects = {name: _aspects(truth) for name, truth in usable.items()}
    borders = (Mark(_SMALL_PX, "small"), Mark(_MEDIUM_PX, "medium"))
    maps = "".join(
        f'<figure class="map"><img src="{place_map(_centres_norm(truth))}" alt="">'
        f"<figcaption>centres of the boxes, {_user(name)}</figcaption></figure>"
        for name, truth in usable.items()
    )
    return (
        f'<section><h2>Boxes</h2><p class="keys">{keys}<small>shares of the boxes of each split</small></p>'
        f'<div class="figures">'
        f"{histogram('size: root of the area, px', sizes, _SIZE_TICKS, borders)}"
        f"{histogram('aspect: width / height', aspects, _ASPECT_TICKS, (Mark(1, 'taller than wide'),))}</div>"
        f'<div class="strip">{maps}</div></section>'
    )


def _class_table(usable: Mapping[str, GroundTruth]) -> str:
    """Boxes of each class, splits side by side; the bars are shares of the split's most frequent class."""
    counts: dict[str, dict[str, int]] = {}
    for split, truth in usable.items():
        per_class = np.bincount(truth.labels, minlength=len(truth.class_names)).tolist()
        for name, number in zip(truth.class_names, per_class, strict=True):
            per_split = counts.setdefault(name, dict.fromkeys(usable, 0))
            per_split[split] += number
    highest = {split: max(1, *(numbers[split] for numbers in counts.values())) for split in usable}
    ranked = sorted(counts, key=lambda name: -sum(counts[name].values()))
    rows = []
    for name in ranked[:CLASSES_SHOWN]:
        bars = "".join(_bar(split, counts[name][split], highest[split]) for split in usable)
        rows.append(f"<tr><td>{_user(name)}</td>{bars}</tr>")
    heads = "".join(f"<th>{_user(split)}</th>" for split in usable)
    more = f"<p class='more'>and {len(ranked) - CLASSES_SHOWN:,} more</p>" if len(ranked) > CLASSES_SHOWN else ""
    return (
        f'<section><h2>Classes</h2><table class="classes"><thead><tr><th>class</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>{more}</section>"
    )


def _bar(split: str, number: int, highest: int) -> str:
    bar = f'<i style="width:{100 * number / highest:.1f}%;background:{colour_of_split(split)}"></i>'
    return f'<td class="bar{"" if number else " none"}"><span>{number:,}</span>{bar}</td>'


def _key(split: str) -> str:
    return f'<i class="key" style="background:{colour_of_split(split)}"></i>'


def _sides(truth: GroundTruth) -> np.ndarray:
    """(N,) root of each box's area; 0 where it has none."""
    return np.sqrt(np.maximum(truth.boxes_xywh[:, 2:], 0).prod(axis=1))


def _aspects(truth: GroundTruth) -> np.ndarray:
    sizes = truth.boxes_xywh[(truth.boxes_xywh[:, 2:] > 0).all(axis=1), 2:]
    return sizes[:, 0] / sizes[:, 1]


def _centres_norm(truth: GroundTruth) -> np.ndarray:
    centres = truth.boxes_xywh[:, :2] + truth.boxes_xywh[:, 2:] / 2
    return centres / truth.sizes_hw[truth.image_rows][:, ::-1]


def _user(text: object) -> str:
    """A text of the user's, for HTML: its own direction of writing cannot turn what stands beside it."""
    return f"<bdi>{escape(str(text))}</bdi>"
