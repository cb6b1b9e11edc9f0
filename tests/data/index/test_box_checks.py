"""What boxes say against themselves: known cases, a slow reference for near copies, real sets that must stay quiet."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from detkit.data.findings import Finding, Findings
from detkit.data.index.box_checks import NEAR_COPY_IOU, Boxes, check_form, note_boxes
from detkit.types import GroundTruth


def boxes_of(xywh: np.ndarray, labels: np.ndarray | None = None, image_rows: np.ndarray | None = None) -> Boxes:
    """Boxes in two images of 640 x 480, of three classes."""
    zeros = np.zeros(len(xywh), np.int64)
    truth = GroundTruth(
        image_ids=np.array([70, 71]),
        sizes_hw=np.array([[480, 640]] * 2, np.int32),
        boxes_xywh=xywh.astype(np.float64),
        areas=xywh[:, 2] * xywh[:, 3],
        crowd=np.zeros(len(xywh), bool),
        labels=zeros if labels is None else labels,
        image_rows=zeros if image_rows is None else image_rows,
        category_ids=np.array([1, 2, 3]),
        class_names=("a", "b", "c"),
    )
    return Boxes(truth, np.arange(100, 100 + len(xywh)), ["a.jpg", "b.jpg"])


def found_by(check: Callable[[Boxes, Findings], None], boxes: Boxes) -> dict[str, Finding]:
    findings = Findings(Path("a.json"))
    check(boxes, findings)
    return {finding.kind: finding for finding in findings.found}


def random_xywh(number: int, seed: int = 0) -> np.ndarray:
    """Boxes inside of 640 x 480."""
    rng = np.random.default_rng(seed)
    wh = 20 + rng.random((number, 2)) * [200, 150]
    return np.hstack((rng.random((number, 2)) * ([640, 480] - wh), wh))


def test_right_boxes_are_not_suspected() -> None:
    assert found_by(check_form, boxes_of(random_xywh(500))) == {}


@pytest.mark.parametrize("centred", [False, True])
def test_normalised_boxes_are_refused(centred: bool) -> None:
    xywh = random_xywh(50)
    xywh[:, :2] += xywh[:, 2:] / 2 * centred
    found = found_by(check_form, boxes_of(xywh / [640, 480, 640, 480]))
    assert list(found) == ["box-normalised"]
    finding = found["box-normalised"]
    assert (finding.level, finding.number) == ("error", 50)
    assert "boxes that look normalised, of 50: no number is above 1.05" in str(finding)
    place = finding.places[3]
    assert (place.file, place.image_id, place.annotation_id) == ("a.jpg", 70, 103)
    assert place.text.startswith("annotation 103 has [0.")


def test_corners_are_refused() -> None:
    xywh = random_xywh(50)
    xywh[:, 2:] += xywh[:, :2]
    found = found_by(check_form, boxes_of(xywh))
    assert list(found) == ["box-xyxy"] and found["box-xyxy"].level == "error"
    beyond = ((xywh[:, :2] + xywh[:, 2:]) > [704, 528]).any(axis=1).sum()
    assert found["box-xyxy"].number == beyond >= 10
    assert "as corners they lie inside (as do 50)" in str(found["box-xyxy"])


def test_a_few_such_boxes_are_told_and_no_more() -> None:
    """What may be right stops nobody: a whole set that is small, and one box among many."""
    xywh = random_xywh(50)
    xywh[7] = [0.25, 0.5, 0.1, 0.1]
    xywh[8] = [400, 300, 600, 400]
    found = found_by(check_form, boxes_of(xywh))
    assert {kind: (finding.level, finding.number) for kind, finding in found.items()} == {
        "box-normalised": ("notice", 1),
        "box-xyxy": ("notice", 1),
    }
    assert found["box-xyxy"].places[0].text == "annotation 108 has [400.0, 300.0, 600.0, 400.0]"
    assert found_by(check_form, boxes_of(random_xywh(5) / 640))["box-normalised"].level == "notice"


def test_sloppy_edges_are_no_corners() -> None:
    """Large boxes that reach over the edge by some pixels read well as corners, and are not meant so."""
    xywh = np.tile([3, 2, 640, 480], (40, 1)) + np.random.default_rng(0).random((40, 4))
    assert found_by(check_form, boxes_of(xywh)) == {}


def slow_near_copies(boxes: Boxes) -> set[int]:
    """Each box against all earlier ones."""
    truth, near = boxes.truth, set()
    corners = np.hstack((truth.boxes_xywh[:, :2], truth.boxes_xywh[:, :2] + truth.boxes_xywh[:, 2:]))
    for later in range(len(corners)):
        for earlier in range(later):
            same = truth.labels[later] == truth.labels[earlier] and truth.image_rows[later] == truth.image_rows[earlier]
            if not same or (corners[later] == corners[earlier]).all():
                continue
            low, high = (
                np.maximum(corners[later], corners[earlier])[:2],
                np.minimum(corners[later], corners[earlier])[2:],
            )
            overlap = np.maximum(high - low, 0).prod()
            union = truth.areas[later] + truth.areas[earlier] - overlap
            if overlap > NEAR_COPY_IOU * union:
                near.add(100 + later)
    return near


@pytest.mark.parametrize("seed", range(5))
def test_near_copies_agree_with_slow_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    xywh = np.concatenate((random_xywh(60, seed), random_xywh(60, seed) + rng.normal(0, 2, (60, 4))))
    rows, labels = np.tile(rng.integers(0, 2, 60), 2), np.tile(rng.integers(0, 3, 60), 2)
    boxes = boxes_of(xywh, labels, rows)
    expected = slow_near_copies(boxes)
    assert 5 < len(expected) < 60
    found = found_by(note_boxes, boxes)["box-near-copy"]
    assert {place.annotation_id for place in found.places} == expected and found.number == len(expected)


def test_exact_copies_are_no_near_copies() -> None:
    xywh = np.tile([10, 10, 50, 50], (3, 1))
    found = found_by(note_boxes, boxes_of(xywh))
    assert found["box-copy"].number == 2 and "box-near-copy" not in found
    assert [place.annotation_id for place in found["box-copy"].places] == [101, 102]


def test_slivers_and_rare_classes() -> None:
    xywh = random_xywh(202)
    xywh[5] = [10, 10, 1.5, 40]
    found = found_by(note_boxes, boxes_of(xywh, np.array([0] * 201 + [2])))
    assert str(found["box-tiny"]) == "boxes narrower or lower than 2 px: 1 (annotation 105)"
    assert str(found["class-rare"]) == (
        "classes with less than 1/100 of the boxes of the most frequent one (a 201): 1 (c 1)"
    )
    assert str(found["class-without-boxes"]) == "classes without boxes: 1 (b)"


def test_a_heap_on_one_spot_takes_no_quadratic_time() -> None:
    """Each is compared with a hundred neighbours, which is enough to find that it is no single box."""
    xywh = np.array([100, 100, 200, 200]) + np.random.default_rng(0).random((5000, 4))
    assert found_by(note_boxes, boxes_of(xywh))["box-near-copy"].number > 4800


@pytest.mark.parametrize("split", ["bccd/train", "dice/train", "chess/train", "aerial_cars/train", "coco_mini/val"])
def test_real_sets_in_a_wrong_form_are_refused(shared_data: Path, tmp_path: Path, split: str) -> None:
    from detkit.data.index.coco_index import load_index
    from detkit.errors import DataError

    folder, name = split.split("/")
    document = json.loads((shared_data / folder / f"annotations/instances_{name}.json").read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
    for form, expected in (
        ("xyxy", r"boxes that look like \[x1, y1, x2, y2\]"),
        ("norm", "boxes that look normalised"),
    ):
        changed = json.loads(json.dumps(document))
        for record in changed["annotations"]:
            (x, y, w, h), (width, height) = record["bbox"], sizes[record["image_id"]]
            record["bbox"] = [x, y, x + w, y + h] if form == "xyxy" else [x / width, y / height, w / width, h / height]
        (tmp_path / "a.json").write_text(json.dumps(changed))
        with pytest.raises(DataError, match=expected):
            load_index(tmp_path / "a.json", shared_data / split)
