"""The HTML report: well-formed, without script or address, hostile texts as text, figures that tell the truth."""

import re
from pathlib import Path

import numpy as np
import pytest

from detkit.data.checking.check import CheckedSplit, check_splits
from detkit.data.checking.page import write_html
from detkit.data.checking.pictures import PictureMaker
from detkit.data.findings import Finding, Findings, Place, Report
from detkit.data.formats.layout import find_layout
from detkit.errors import StorageError
from tests.helpers.html_page import Page, pixels
from tests.helpers.small_set import read_split, write_split

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"


@pytest.fixture
def splits(tmp_path: Path) -> dict[str, CheckedSplit]:
    write_split(tmp_path, "train", 9, class_names=("thing", HOSTILE))
    write_split(tmp_path, "val", 4, class_names=("thing", "only in val"))  # which the check of both would not pass
    layout = find_layout(tmp_path)
    indices = {name: read_split(tmp_path, name) for name in layout}
    return {name: CheckedSplit(name, index, index.report, *layout[name]) for name, index in indices.items()}


def with_findings(split: CheckedSplit, *findings: Finding) -> CheckedSplit:
    return CheckedSplit(split.name, split.index, Report("", findings), split.annotations, split.images)


def write(tmp_path: Path, splits: dict[str, CheckedSplit]) -> Page:
    write_html(tmp_path / "report.html", splits)
    return Page(tmp_path / "report.html")


def test_asks_for_nothing_and_runs_nothing(tmp_path: Path, splits: dict[str, CheckedSplit]) -> None:
    page = write(tmp_path, splits)
    assert not page.tags.keys() & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name in ("href", "srcset", "action")]
    policy = [value for tag, name, value in page.attributes if (tag, name) == ("meta", "content")]
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in policy
    assert "url(" not in (tmp_path / "report.html").read_text() and page.pictures  # all of them data: URIs


def test_hostile_texts_stay_texts(tmp_path: Path, splits: dict[str, CheckedSplit]) -> None:
    places = (Place(f"place {HOSTILE}", file=HOSTILE, image_id=10), Place(f"nowhere {HOSTILE}", file=HOSTILE))
    finding = Finding(f"kind{HOSTILE}", "error", f"what {HOSTILE}", 2, places, f"remedy {HOSTILE}")
    whole = with_findings(splits["train"], finding)
    unusable = CheckedSplit(HOSTILE, None, Report("", (finding,)), tmp_path / HOSTILE, tmp_path)
    page = write(tmp_path, {"train": whole, HOSTILE: unusable})
    for said in ("place ", "nowhere ", "kind", "what ", "Remedy ", f"{tmp_path}/"):
        assert said + HOSTILE in page.text
    assert page.text.count(HOSTILE) >= 12  # the class and the split too
    assert not page.tags.keys() & {"script"} and not [name for _, name, _ in page.attributes if name == "onerror"]


def test_file_names_that_are_no_unicode(tmp_path: Path, splits: dict[str, CheckedSplit]) -> None:
    finding = Finding("kind", "notice", "what", 1, (Place("caf\udce9\x00.jpg"),))
    assert "caf?" in write(tmp_path, {"train": with_findings(splits["train"], finding)}).text


def test_counts_and_places(tmp_path: Path, splits: dict[str, CheckedSplit]) -> None:
    """9 images with 0, 1 and 2 boxes in turn: 9 boxes, 5 of the first class and 4 of the other."""
    places = tuple(Place(f"annotation {number}") for number in range(150))
    error = Finding("kind-a", "error", "wrong things", 1234, places, "mend them")
    page = write(tmp_path, {"train": with_findings(splits["train"], error), "val": splits["val"]})
    assert "Cannot be used yet. Errors: 1,234 in train." in page.text
    assert re.search(r"train \S+instances_train\.json 9 9 1\.0 \(max 2\) 2 ", page.text)
    assert "wrong things : 1,234 kind-a Mend them ." in page.text
    assert "annotation 99 " in page.text and "annotation 100" not in page.text and "and 1,134 more" in page.text
    classes = page.text[page.text.index("Classes class train val") :]
    assert "thing 5 2 " in classes and f"{HOSTILE} 4 0" in classes and "only in val 0 1" in classes
    assert "Can be used. No error" in write(tmp_path, splits).text


def test_split_that_cannot_be_used(tmp_path: Path) -> None:
    """Its findings are told, and pictures shown of its own folder alone."""
    write_split(tmp_path, "train", 1)
    (tmp_path / "outside.png").write_bytes((tmp_path / "train" / "0.png").read_bytes())
    names = ("0.png", "../outside.png", "gone.png")
    finding = Finding("image-bad", "error", "bad images", 3, tuple(Place(name, file=name) for name in names))
    unusable = CheckedSplit("train", None, Report("", (finding,)), tmp_path / "a.json", tmp_path / "train")
    page = write(tmp_path, {"train": unusable})
    assert "not counted, because of its errors" in page.text and "Classes" not in page.text
    assert [picture.shape for picture in page.pictures] == [(96, 128, 3)]
    assert "'../outside.png' is not in the image folder" in page.text and "gone.png: cannot be read" in page.text
    nothing = CheckedSplit("train", None, Report("", ()), tmp_path / "a.json", tmp_path / "train")
    assert "Nothing was found." in write(tmp_path, {"train": nothing}).text


def test_named_box_is_marked_in_its_image(splits: dict[str, CheckedSplit]) -> None:
    """Image 2 has annotations 2 and 3; the named one alone has the colour of its class around it."""
    index = splits["train"].index
    assert index is not None
    place = Place("annotation 3", annotation_id=3)
    [picture] = PictureMaker(10**6).pictures_of(Finding("k", "repaired", "w", 1, (place, place), ""), splits["train"])
    assert picture.text == "2.png; annotation 3; annotation 3"
    image = pixels(picture.uri).astype(int)
    factor = image.shape[0] // 96  # enlarged to be seen
    coloured = np.abs(image - image.mean(axis=2, keepdims=True)).max(axis=2) > 30
    columns = np.flatnonzero(coloured.any(axis=0)) / factor
    x, _, width, _ = index.ground_truth().boxes_xywh[2]
    other_x, _, other_width, _ = index.ground_truth().boxes_xywh[1]
    assert factor >= 1 and other_x + other_width < x - 5  # the other one is at its left
    assert abs(columns.min() - x) < 4 and columns.max() > x + width - 4


def test_boxes_beyond_the_image_are_seen(splits: dict[str, CheckedSplit]) -> None:
    index = splits["train"].index
    assert index is not None
    row = 2  # annotation 3
    index.ground_truth().boxes_xywh.flags.writeable = True
    index.ground_truth().boxes_xywh[row] = (110, 20, 40, 30)  # the image is 128 wide
    finding = Finding("k", "repaired", "w", 1, (Place("p", annotation_id=3),))
    [picture] = PictureMaker(10**6).pictures_of(finding, splits["train"])
    height, width = pixels(picture.uri).shape[:2]
    assert width / height == pytest.approx((150 + 2) / 96, abs=0.02)


def test_pictures_are_limited(splits: dict[str, CheckedSplit]) -> None:
    finding = Finding("k", "notice", "w", 9, tuple(Place(str(n), image_id=10 + n) for n in range(9)))
    maker = PictureMaker(3000)
    assert len(maker.pictures_of(finding, splits["train"])) == 4 and maker.bytes_left <= 0
    assert maker.pictures_of(finding, splits["train"]) == []


def test_broken_images_are_no_end_of_the_report(tmp_path: Path, splits: dict[str, CheckedSplit]) -> None:
    (tmp_path / "train" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    finding = Finding("k", "notice", "w", 2, (Place("a", image_id=11), Place("b", image_id=12)))
    page = write(tmp_path, {"train": with_findings(splits["train"], finding)})
    assert "1.png: the PNG is cut" in page.text and len(page.pictures) == 2  # the other, and the map of places


def test_unwritable_place(tmp_path: Path, splits: dict[str, CheckedSplit]) -> None:
    with pytest.raises(StorageError, match=r"nowhere/report\.html: the report cannot be written: No such file"):
        write_html(tmp_path / "nowhere" / "report.html", splits)


def test_real_sets(tmp_path: Path, shared_data: Path) -> None:
    for name in ("bccd", "coco_mini"):
        page = write(tmp_path, check_splits(find_layout(shared_data / name)))
        assert page.tags["svg"] == 2 and len(page.pictures) > 3 and page.tags["script"] == 0
        assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_findings_of_the_check_come_through(tmp_path: Path, splits: dict[str, CheckedSplit]) -> None:
    findings = Findings(tmp_path)
    findings.repaired("box-x", "boxes mended", 2, [Place("annotation 1", annotation_id=1)])
    page = write(tmp_path, {"val": with_findings(splits["val"], *findings.found)})
    assert "repaired boxes mended : 2 box-x" in page.text and "and 1 more" in page.text
