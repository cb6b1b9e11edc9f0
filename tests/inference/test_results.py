"""Detections of one image, against numbers written down by hand."""

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

from detkit.inference import Detection, ImageDetections

NAMES = ("cat", "dog", "dog house")
BOXES = np.array([[10.0, 20.0, 40.0, 60.5], [100.0, 10.0, 130.0, 50.0], [0.0, 0.0, 8.0, 4.0]], np.float32)
SCORES = np.array([0.5, 0.75, 0.25], np.float32)
LABELS = np.array([1, 0, 1])


def grey() -> np.ndarray:
    return np.full((100, 160, 3), 90, np.uint8)


def found(**changes: Any) -> ImageDetections:
    values = {"boxes": BOXES, "scores": SCORES, "labels": LABELS, "class_names": NAMES, "image_hw": (100, 160)}
    return ImageDetections(**{**values, **changes})


def nothing(**changes: Any) -> ImageDetections:
    return found(boxes=BOXES[:0], scores=SCORES[:0], labels=LABELS[:0], **changes)


def test_best_first() -> None:
    detections = found()
    assert detections.scores.tolist() == [0.75, 0.5, 0.25]
    assert detections.boxes.tolist() == BOXES[[1, 0, 2]].tolist()
    assert detections.labels.tolist() == [0, 1, 1]
    assert detections.names == ["cat", "dog", "dog"]
    assert len(detections) == 3
    types = [values.dtype for values in (detections.boxes, detections.scores, detections.labels)]
    assert types == [np.float32, np.float32, np.int64]


def test_equal_scores_keep_their_order() -> None:
    assert found(scores=np.full(3, 0.5)).labels.tolist() == [1, 0, 1]


def test_one_by_one() -> None:
    cat = Detection("cat", 0.75, (100.0, 10.0, 130.0, 50.0), 0)
    detections = found()
    assert next(iter(detections)) == detections[0] == detections[-3] == detections[np.int64(0)] == cat
    assert [detection.box[3] for detection in detections] == [50.0, 60.5, 4.0]
    assert list(nothing()) == []
    with pytest.raises(IndexError, match="out of range"):
        detections[3]


def test_slices_and_masks() -> None:
    detections = found(path=Path("a.jpg"))
    assert detections[:2].scores.tolist() == [0.75, 0.5]
    assert detections[1:].names == ["dog", "dog"]
    assert (detections[2:].path, detections[2:].image_hw, len(detections[3:])) == (Path("a.jpg"), (100, 160), 0)
    mask = [True, False, True]
    forms: list[Any] = [mask, torch.tensor(mask), np.array(mask)]
    for form in forms:
        assert detections[form].scores.tolist() == [0.75, 0.25]
    assert detections[detections.scores > 0.4].boxes.tolist() == BOXES[[1, 0]].tolist()
    assert len(nothing()[[]]) == 0


@pytest.mark.parametrize(("mask", "got"), [([True, False], r"\(2,\) of bool"), ([0, 1, 2], r"\(3,\) of int64")])
def test_other_masks_are_refused(mask: Any, got: str) -> None:
    with pytest.raises(IndexError, match=rf"a mask must be 3 booleans; got {got}"):
        found()[mask]


def test_filter() -> None:
    detections = found()
    assert detections.filter(0.5).scores.tolist() == [0.75, 0.5]
    assert detections.filter(classes="dog").scores.tolist() == [0.5, 0.25]
    assert detections.filter(0.3, ["dog", "dog house"]).scores.tolist() == [0.5]
    assert len(detections.filter(classes=[])) == len(detections.filter(classes="dog house")) == 0
    assert len(nothing().filter(0.1, "cat")) == 0
    with pytest.raises(ValueError, match="there is no class 'dgo'; did you mean 'dog'"):
        detections.filter(classes=["cat", "dgo"])
    with pytest.raises(ValueError, match=r"score_threshold must lie in \[0, 1\]; got 25"):
        detections.filter(score_threshold=25)


def test_coco_results() -> None:
    """xywh, exactly; pycocotools reads them."""
    results = found().to_coco(7, category_ids=[3, 18, 90])
    assert results == [
        {"image_id": 7, "category_id": 3, "bbox": [100.0, 10.0, 30.0, 40.0], "score": 0.75},
        {"image_id": 7, "category_id": 18, "bbox": [10.0, 20.0, 30.0, 40.5], "score": 0.5},
        {"image_id": 7, "category_id": 18, "bbox": [0.0, 0.0, 8.0, 4.0], "score": 0.25},
    ]
    coco: Any = COCO()
    coco.dataset = {"images": [{"id": 7}], "categories": [], "annotations": []}
    coco.createIndex()
    loaded = coco.loadRes(json.loads(json.dumps(results)))
    assert [annotation["area"] for annotation in loaded.loadAnns(loaded.getAnnIds())] == [1200.0, 1215.0, 32.0]
    wide = found(boxes=np.array([[0.1, 0, 1000.3, 1]] * 3)).to_coco(7)[0]["bbox"]
    assert wide[2] == np.float32(1000.3).item() - np.float32(0.1).item()  # not rounded to float32
    assert [result["category_id"] for result in found().to_coco(7)] == [1, 2, 2]
    assert nothing().to_coco(7) == []
    with pytest.raises(ValueError, match="category_ids must be one for each of 3 classes; got 2"):
        found().to_coco(7, [1, 2])


def test_table() -> None:
    pandas = pytest.importorskip("pandas", reason="needs pandas, which detkit does without")
    table = found().to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert list(table) == ["name", "score", "x1", "y1", "x2", "y2", "label"]
    assert table.iloc[1].tolist() == ["dog", 0.5, 10.0, 20.0, 40.0, 60.5, 1]
    assert table.score.tolist() == [0.75, 0.5, 0.25]
    for some in (table, nothing().to_pandas()):
        assert [kind.kind for kind in some.dtypes] == list("Offfffi")
    assert len(nothing().to_pandas()) == 0


def test_table_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_pandas needs pandas, which is not installed: pip install pandas"):
        found().to_pandas()


def test_drawing_changes_what_is_near_the_boxes() -> None:
    image = grey()
    picture = found(read=grey).draw()
    changed = (picture != image).any(axis=2)
    for x1, y1, x2, y2 in BOXES.astype(int).tolist():
        assert changed[y1:y2, x1].all() and changed[y1, x1:x2].all()
        assert changed[y1:y2, x2 - 1].all() and changed[y2 - 1, x1:x2].all()
    assert not changed[30:55, 14:36].any() and not changed[70:].any() and not changed[:, 145:].any()
    np.testing.assert_array_equal(image, grey())
    np.testing.assert_array_equal(found().draw(image), picture)
    np.testing.assert_array_equal(nothing().draw(image), image)


def test_only_its_own_image_is_drawn_on() -> None:
    with pytest.raises(ValueError, match=r"draw\(image\)"):
        found().draw()
    with pytest.raises(ValueError, match="size of the detections, 160 x 100; got 100 x 160"):
        found().draw(np.zeros((160, 100, 3), np.uint8))


def test_notebook_picture() -> None:
    content = found(read=grey)._repr_png_()
    assert content is not None
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(decoded, found().draw(grey()))
    assert found()._repr_png_() is None


def test_large_images_are_shrunk_for_a_notebook() -> None:
    content = found(image_hw=(300, 4096), read=lambda: np.zeros((300, 4096, 3), np.uint8))._repr_png_()
    assert content is not None
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert decoded is not None
    assert decoded.shape == (75, 1024, 3)


def test_repr() -> None:
    assert repr(found(path=Path("a/b.jpg"))) == "<3 detections in b.jpg (160 x 100): 2 dog, 1 cat; best 0.75>"
    assert repr(found()[:1]) == "<1 detection in image (160 x 100): 1 cat; best 0.75>"
    assert repr(nothing()) == "<nothing in image (160 x 100)>"
    many = found(
        boxes=BOXES[:1].repeat(8, axis=0),
        scores=np.full(8, 0.5),
        labels=np.array([0, 1, 2, 3, 4, 5, 6, 6]),
        class_names="abcdefg",
    )
    assert repr(many).endswith("(160 x 100): 2 g, 1 a, 1 b, 1 c, 1 d, 2 of 2 other classes; best 0.50>")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": SCORES[:2]}, r"must be \(N, 4\), \(N,\) and \(N,\); got \(3, 4\), \(2,\), \(3,\)"),
        ({"boxes": BOXES[:, :3]}, r"got \(3, 3\), \(3,\), \(3,\)"),
        ({"boxes": BOXES - np.inf}, "boxes must be finite; got -inf"),
        ({"scores": np.array([0.5, np.nan, 1])}, "scores must be finite; got nan"),
        ({"labels": np.array([0, 3, 1])}, r"labels must lie in \[0, 3\), one for each class name; got 3"),
        ({"labels": np.array([0, -1, 1])}, r"labels must lie in \[0, 3\), one for each class name; got -1"),
    ],
)
def test_what_is_no_detections(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        found(**changes)
