"""The index of a split: known sets, pycocotools' reading of the same file, repairs, and every fault named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from detkit.data.images import image_files
from detkit.data.index.coco_index import CocoIndex, load_index
from detkit.errors import DataError

Document = dict[str, Any]


def document() -> Document:
    """Three images of 100 x 80, ids and category ids with gaps and out of order."""
    return {
        "images": [
            {"id": image_id, "file_name": f"{image_id}.jpg", "width": 100, "height": 80} for image_id in (30, 10, 20)
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 90, "name": "bird"}],
        "annotations": [
            {"id": 5, "image_id": 20, "category_id": 7, "bbox": [10, 20, 30, 40], "area": 99.5, "iscrowd": 0},
            {"id": 6, "image_id": 30, "category_id": 3, "bbox": [0, 0, 100, 80], "iscrowd": 1},
            {"id": 8, "image_id": 20, "category_id": 90, "bbox": [1.5, 2.5, 3, 4], "area": None},
        ],
    }


@pytest.fixture
def make(tmp_path: Path) -> Callable[[Document], CocoIndex]:
    """Write a document and its images, and read them as an index."""

    def write_and_load(content: Document) -> CocoIndex:
        (tmp_path / "images").mkdir(exist_ok=True)
        for image_id in (10, 20, 30):
            cv2.imwrite(str(tmp_path / f"images/{image_id}.jpg"), np.full((80, 100, 3), 90, np.uint8))
        (tmp_path / "a.json").write_text(json.dumps(content))
        return load_index(tmp_path / "a.json", tmp_path / "images")

    return write_and_load


def test_golden(make: Callable[[Document], CocoIndex]) -> None:
    """Images in the file's order, classes in the order of their ids, boxes gathered by image."""
    index = make(document())
    assert len(index) == 3
    assert index.image_ids.tolist() == [30, 10, 20]
    assert index.class_names == ("cat", "dog", "bird")
    assert index.category_ids.tolist() == [3, 7, 90]
    assert index.offsets.tolist() == [0, 1, 1, 3]
    assert index.boxes.tolist() == [[0, 0, 100, 80], [10, 20, 40, 60], [1.5, 2.5, 4.5, 6.5]]
    assert index.boxes.dtype == np.float32
    assert index.labels.tolist() == [0, 1, 2]
    assert index.crowd.tolist() == [True, False, False]
    assert index.sizes_hw.tolist() == [[80, 100]] * 3
    assert [index.path(row).name for row in range(3)] == ["30.jpg", "10.jpg", "20.jpg"]
    assert [part.tolist() for part in index.boxes_of(2)] == [
        [[10, 20, 40, 60], [1.5, 2.5, 4.5, 6.5]],
        [1, 2],
        [False, False],
    ]


def test_ground_truth_is_the_file(make: Callable[[Document], CocoIndex]) -> None:
    truth = make(document()).ground_truth()
    assert truth.boxes_xywh.tolist() == [[10, 20, 30, 40], [0, 0, 100, 80], [1.5, 2.5, 3, 4]]
    assert truth.areas.tolist() == [99.5, 8000, 12]  # width * height where the file has none
    assert truth.crowd.tolist() == [False, True, False]
    assert truth.labels.tolist() == [1, 0, 2]
    assert truth.image_rows.tolist() == [2, 0, 2]


@pytest.mark.parametrize("split", ["bccd", "chess", "coco_mini", "aerial_cars"])
def test_agrees_with_pycocotools(shared_data: Path, split: str) -> None:
    """Box for box, by the file's own ids."""
    annotations = shared_data / split / "annotations" / "instances_val.json"
    index, judge = load_index(annotations, shared_data / split / "val"), COCO(str(annotations))
    truth = index.ground_truth()
    records = judge.dataset["annotations"]
    assert len(truth.labels) == len(records) > 0
    assert truth.image_ids[truth.image_rows].tolist() == [record["image_id"] for record in records]
    assert truth.category_ids[truth.labels].tolist() == [record["category_id"] for record in records]
    assert truth.boxes_xywh.tolist() == [record["bbox"] for record in records]
    assert truth.areas.tolist() == [record["area"] for record in records]
    assert truth.crowd.tolist() == [bool(record["iscrowd"]) for record in records]
    assert index.category_ids.tolist() == sorted(judge.getCatIds())
    assert list(index.class_names) == [category["name"] for category in judge.loadCats(sorted(judge.getCatIds()))]
    for row in range(len(index)):
        boxes, labels, crowd = index.boxes_of(row)
        assert (index.path(row).name, len(labels), len(crowd)) == (
            judge.loadImgs(int(index.image_ids[row]))[0]["file_name"],
            len(boxes),
            len(boxes),
        )
        size_wh = index.sizes_hw[row][::-1]
        assert (boxes >= 0).all() and (boxes <= np.tile(size_wh, 2)).all() and (boxes[:, 2:] > boxes[:, :2]).all()


@pytest.mark.parametrize(
    ("split", "oddities"),
    [
        ("bccd/train", ["boxes without area, left out of training: 1 (annotation 2288)"]),
        ("bccd/test", []),
        ("dice/train", []),
        (
            "aerial_cars/train",
            [
                "boxes over the edge of the image, clipped to it: 3 (annotation 500, annotation 544, annotation 653)",
                "classes without boxes: 1 (cyclist)",
                "classes with less than 1/100 of the boxes of the most frequent one (car 1,169): 1 (truck 3)",
            ],
        ),
        (
            "chess/train",
            [
                "exact copies of a box: 1 (annotation 1325)",
                "classes without boxes: 1 (pieces)",
                "classes with less than 1/100 of the boxes of the most frequent one (black-pawn 496): 1 (bishop 1)",
                "annotation id 0, whose match pycocotools would not count and detkit does: 1 (annotation 0)",
            ],
        ),
        (
            "coco_mini/val",
            [
                (
                    "crowd boxes, neither object nor background in training: 6 (annotation 900100005001, "
                    "annotation 900100184324, annotation 900100520707, annotation 904600166918, annotation "
                    "908400255165, and 1 more)"
                ),
                "images without boxes, used as background: 2 (000000058636.jpg, 000000226111.jpg)",
                "classes without boxes: 25 (parking meter, bench, sheep, bear, zebra, and 20 more)",
                (
                    "classes with less than 1/100 of the boxes of the most frequent one (person 114): 14 (airplane 1, "
                    "train 1, truck 1, boat 1, cat 1, and 9 more)"
                ),
            ],
        ),
    ],
)
def test_reports_of_real_sets(shared_data: Path, split: str, oddities: list[str]) -> None:
    """What their READMEs say is odd, and nothing else."""
    folder, name = split.split("/")
    report = load_index(shared_data / folder / f"annotations/instances_{name}.json", shared_data / split).report
    assert [str(finding) for finding in report.findings] == oddities


def test_report_of_odd_images(shared_data: Path) -> None:
    root = shared_data / "odd_images"
    report = str(load_index(root / "annotations/instances_train.json", root / "train").report)
    assert "46 images, 52 boxes, 8 classes (person 24, hat 15" in report
    assert "46 of 46 image headers read" in report
    for line in (
        "grayscale images, read as RGB: 5 (hopper_gray.jpg",
        "CMYK images, converted without a profile: 1 (pil_sample_cmyk.jpg)",
        "16-bit images, scaled to 8 bits: 3 (tiff_16bit_RGB.tiff",
        "images with an EXIF orientation, read upright: 16 (",
        "images with transparency, drawn over grey: 8 (",
        "animated images, of which only the first image is read: 1 (apng_mode_16bit.png)",
        "images without boxes, used as background: 14 (",
    ):
        assert f"\n  {line}" in report


def test_broken_images_are_one_error(shared_data: Path) -> None:
    root = shared_data / "odd_images"
    with pytest.raises(DataError) as caught:
        load_index(root / "annotations/instances_broken.json", root / "broken")
    text = str(caught.value)
    assert "image files that are not in" in text and "image 11: does_not_exist.jpg" in text
    assert "image files that cannot be read: 10; replace them" in text
    assert "image 1: " in text and "truncated_jpeg.jpg: the JPEG is cut" in text


def test_sizes_that_ignore_exif(shared_data: Path) -> None:
    root = shared_data / "odd_images"
    expected = r"ignore that EXIF turns the picture: 2; .*\n    image 3: .*Exif\.jpg is 800 x 600, not 600 x 800"
    with pytest.raises(DataError, match=expected):
        load_index(root / "annotations/instances_rawframe.json", root / "rawframe")


def test_repairs_leave_the_ground_truth_alone(make: Callable[[Document], CocoIndex]) -> None:
    content = document()
    boxes = [[-5, 70, 20, 20], [10, 10, 0, 5], [10, 10, -4, 5], [200, 10, 5, 5], [99.999999, 10, 5, 5], [1, 2, 3, 4]]
    content["annotations"] = [
        {"id": number, "image_id": 10, "category_id": 3, "bbox": box} for number, box in enumerate(boxes, start=1)
    ]
    index = make(content)
    assert index.boxes.tolist() == [[0, 70, 15, 80], [1, 2, 4, 6]]
    assert index.ground_truth().boxes_xywh.tolist() == boxes
    assert [str(finding) for finding in index.report.of_level("repaired")] == [
        "boxes over the edge of the image, clipped to it: 1 (annotation 1)",
        "boxes without area, left out of training: 2 (annotation 2, annotation 3)",
        "boxes outside of their image, left out of training: 2 (annotation 4, annotation 5)",
    ]


def test_copies_of_a_box_are_counted(make: Callable[[Document], CocoIndex]) -> None:
    """The same box of another class or image is none."""
    content = document()
    first = content["annotations"][0]
    others = [{"id": 10}, {"id": 11}, {"id": 12, "category_id": 3}, {"id": 13, "image_id": 10}]
    content["annotations"] += [first | other for other in others]
    assert "exact copies of a box: 2 (annotation 10, annotation 11)" in str(make(content).report)


def test_no_boxes_at_all(make: Callable[[Document], CocoIndex]) -> None:
    index = make(document() | {"annotations": []})
    assert index.boxes.shape == (0, 4)
    assert [part.shape for part in index.boxes_of(1)] == [(0, 4), (0,), (0,)]
    assert index.ground_truth().boxes_xywh.shape == (0, 4)
    assert "images without boxes, used as background: 3" in str(index.report)


def test_arrays_are_read_only_and_answers_are_copies(make: Callable[[Document], CocoIndex]) -> None:
    index = make(document())
    with pytest.raises(ValueError, match="read-only"):
        index.boxes[0] = 0
    index.boxes_of(0)[0][:] = 0
    assert index.boxes[0].tolist() == [0, 0, 100, 80]


def test_fingerprint_follows_the_content(make: Callable[[Document], CocoIndex]) -> None:
    content = document()
    fingerprints = {make(content).fingerprint, make(content | {"info": "anything"}).fingerprint}
    assert len(fingerprints) == 1
    for key, value in (("bbox", [10, 20, 30, 41]), ("category_id", 3), ("image_id", 10), ("iscrowd", 1), ("area", 1)):
        other = document()
        other["annotations"][0][key] = value
        fingerprints.add(make(other).fingerprint)
    other = document()
    other["categories"][0]["name"] = "wolf"
    fingerprints.add(make(other).fingerprint)
    assert len(fingerprints) == 7


def test_names_in_folders_and_with_accents(tmp_path: Path) -> None:
    (tmp_path / "días/ä b").mkdir(parents=True)
    Image.new("RGB", (100, 80)).save(tmp_path / "días/ä b/é=1.png")
    content = document() | {"annotations": []}
    content["images"] = [content["images"][0] | {"file_name": "días/ä b/é=1.png"}]
    (tmp_path / "a.json").write_text("\ufeff" + json.dumps(content, ensure_ascii=False), encoding="utf-8")  # with BOM
    assert load_index(tmp_path / "a.json", tmp_path).path(0) == tmp_path / "días/ä b/é=1.png"


def test_large_sets_are_sampled(make: Callable[[Document], CocoIndex], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "MAX_HEADERS", 2)
    assert "2 of 3 image headers read" in str(make(document()).report)


@pytest.mark.parametrize(
    ("table", "row", "change", "message"),
    [
        ("images", 1, {"id": "10"}, r"images whose id is not a whole number: 1; .*\n    images\[1\] has '10'"),
        ("images", 1, {"id": 2**70}, r"images whose id is not a whole number.*\n    images\[1\] has 118059"),
        ("images", 1, {"width": 0}, r"images whose width is not a whole number from 1.*\n    image 10 has 0"),
        ("images", 1, {"height": None}, r"images whose height is not .*\n    image 10 has None"),
        ("images", 1, {"file_name": 3}, r"images whose file_name is not a text.*\n    image 10 has 3"),
        ("images", 1, {"file_name": "\ud800"}, r"images whose file_name is not a text.*\n    image 10 has '\\ud800'"),
        ("categories", 0, {"name": None}, r"categories whose name is not a text.*\n    category 7 has None"),
        (
            "annotations",
            1,
            {"id": True},
            r"annotations whose id is not .*\n    annotations\[1\] has True",
        ),
        ("annotations", 1, {"bbox": [1, 2, 3]}, r"annotations whose bbox is not .*\n    annotation 6 has \[1, 2, 3\]"),
        ("annotations", 1, {"bbox": [1, 2, 3, "4"]}, r"whose bbox is not .*\n    annotation 6 has \[1, 2, 3, '4'\]"),
        ("annotations", 1, {"bbox": [1, 2, 3, float("nan")]}, r"bbox is not .* finite .*\n    annotation 6 has .*nan"),
        ("annotations", 1, {"bbox": [1, 2, 1e308, 4]}, r"bbox is not .* finite .*\n    annotation 6 has .*1e\+308"),
        ("annotations", 1, {"area": float("inf")}, r"area is not a finite number from 0.*\n    annotation 6 has inf"),
        ("annotations", 1, {"iscrowd": 2}, r"iscrowd is not 0 or 1.*\n    annotation 6 has 2"),
        ("annotations", 1, {"image_id": 11}, r"image_id is not among the file's images: 1.*\n    annotation 6 has 11"),
        ("annotations", 1, {"category_id": 4}, r"category_id is not among .*categories: 1.*\n    annotation 6 has 4"),
        ("annotations", 1, {"id": 5}, r"ids that several annotations have: 1; .*\n    5"),
        ("images", 1, {"id": 20}, r"ids that several images have: 1; .*\n    20"),
        ("images", 1, {"file_name": "20.jpg"}, r"file names that several images have: 1; .*\n    20\.jpg"),
        ("categories", 1, {"id": 7}, r"ids that several categories have: 1; .*\n    7"),
        ("images", 1, {"file_name": "x.jpg"}, r"image files that are not in .*images: 1; .*\n    image 10: x\.jpg"),
        ("images", 1, {"file_name": "no/x.jpg"}, r"image files that are not in .*\n    image 10: no/x\.jpg"),
        ("images", 1, {"file_name": "/etc/passwd"}, r"not a path inside .*: 1; .*\n    image 10: '/etc/passwd'"),
        ("images", 1, {"file_name": "../a.json"}, r"not a path inside .*: 1; .*\n    image 10: '\.\./a\.json'"),
        ("images", 1, {"file_name": "C:\\a.jpg"}, r"not a path inside .*: 1; .*\n    image 10: 'C:"),
        ("images", 1, {"file_name": "a\0.jpg"}, r"not a path inside .*: 1; .*\n    image 10: 'a\\x00"),
        (
            "images",
            1,
            {"width": 80, "height": 100},
            r"of another size .*\n    image 10: .* is 100 x 80, not 80 x 100",
        ),
    ],
)
def test_faults_are_named(
    make: Callable[[Document], CocoIndex], table: str, row: int, change: dict[str, Any], message: str
) -> None:
    content = document()
    content[table][row] |= change
    with pytest.raises(DataError, match=rf"a\.json cannot be used:(.|\n)*{message}"):
        make(content)


def test_a_missing_key_is_named(make: Callable[[Document], CocoIndex]) -> None:
    content = document()
    del content["annotations"][2]["bbox"]
    with pytest.raises(DataError, match=r"annotations whose bbox is not .*\n    annotation 8 has none"):
        make(content)


def test_faults_are_gathered_and_counted(make: Callable[[Document], CocoIndex]) -> None:
    content = document()
    content["images"][0]["file_name"] = "gone.jpg"
    content["annotations"] = [
        {"id": number, "image_id": 20, "category_id": 1, "bbox": [1, 1, 2, 2]} for number in range(1, 31)
    ]
    with pytest.raises(DataError) as caught:
        make(content)
    lines = str(caught.value).splitlines()
    assert "annotations whose category_id is not among the file's categories: 30; correct the id" in lines[1]
    assert lines[2] == "    annotation 1 has 1"
    assert lines[12] == "    and 20 more"
    assert lines[13].startswith("  image files that are not in ") and "images: 1; copy them there" in lines[13]
    assert lines[14:] == ["    image 30: gone.jpg"]


def test_a_folder_that_cannot_be_listed(make: Callable[[Document], CocoIndex]) -> None:
    content = document()
    content["images"][0]["file_name"] = "a" * 300 + "/a.jpg"
    with pytest.raises(DataError, match="aaa: cannot be listed: File name too long"):
        make(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"images": [\n  1,, 2]}',
            r"a\.json cannot be used:\n  not valid JSON: 1; write .*\n    line 2, column 5: Expecting value",
        ),
        ("", r"not valid JSON: 1; .*\n    line 1, column 1: "),
        ("[]", r"not a COCO annotation file: 1; make it .*\n    it is a list"),
        ("3", r"not a COCO annotation file: 1; .*\n    it is a int"),
        ("{}", "it lacks images, annotations, categories"),
        ('{"images": [], "categories": []}', "it lacks annotations"),
        ('{"images": {}, "annotations": [], "categories": []}', "'images' must be a list of objects"),
        ('{"images": [1], "annotations": [], "categories": []}', "'images' must be a list of objects"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "it lists no images"),
        (
            '{"images": [{"id": 1, "file_name": "a", "width": 1, "height": 1}], "annotations": [], "categories": []}',
            "it lists no categories",
        ),
        ('{"images": ' + "9" * 5000, r"not valid JSON: 1; .*\n    Exceeds the limit .* for integer"),
        ("[" * 100_000, r"not a COCO annotation file: 1; .*\n    its JSON is nested too deeply"),
    ],
)
def test_files_that_are_no_coco(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=message):
        load_index(tmp_path / "a.json", tmp_path)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"\xff"')
    with pytest.raises(DataError, match=r"not a JSON file: 1; .*\n    byte 2 is no UTF-8"):
        load_index(tmp_path / "a.json", tmp_path)
    with pytest.raises(DataError, match=r"b\.json cannot be used:\n  .* cannot be read: 1; .*\n    No such file"):
        load_index(tmp_path / "b.json", tmp_path)


def test_numbers_that_json_does_not_know_are_told(make: Callable[[Document], CocoIndex]) -> None:
    """Where they are read they are errors, elsewhere other programs stumble over them."""
    content = document() | {"info": [float("nan"), float("nan"), float("-inf")]}
    expected = "numbers NaN, Infinity or -Infinity, which are no JSON and which other programs refuse: 3 "
    assert f"{expected}(NaN, NaN, -Infinity)" in str(make(content).report)


def test_what_pycocotools_cannot_do_without_is_told(make: Callable[[Document], CocoIndex]) -> None:
    content = document()
    content["annotations"][0]["isCrowd"] = content["annotations"][0].pop("iscrowd")
    report = str(make(content).report)
    assert "annotations without iscrowd, for which no crowd is taken: 2 (annotation 5, annotation 8)" in report
    assert "annotations without area, for which width x height is taken: 2 (annotation 6, annotation 8)" in report


def test_one_name_of_a_megabyte_costs_no_memory_of_the_others(make: Callable[[Document], CocoIndex]) -> None:
    """As a numpy array of texts, all names would take the room of the longest."""
    content = document()
    content["images"] += [content["images"][0] | {"id": 100 + row, "file_name": f"{row}.png"} for row in range(20_000)]
    content["images"][0]["file_name"] = "a" * 1_000_000
    with pytest.raises(DataError, match=r"image files that are not in .*: 20,001; .*\n    image 30: a{100}") as caught:
        make(content)
    assert len(str(caught.value)) < 2000


def test_a_hostile_name_cannot_write_to_the_terminal(make: Callable[[Document], CocoIndex]) -> None:
    content = document()
    content["images"][0]["file_name"] = "\x1b[2J\n\u202egpj.jpg"
    with pytest.raises(DataError, match=r"image 30: \\x1b\[2J\\n\\u202egpj\.jpg"):
        make(content)


def test_a_suffix_that_lies_is_told(make: Callable[[Document], CocoIndex], tmp_path: Path) -> None:
    make(document())
    Image.new("RGB", (100, 80)).save(tmp_path / "images/10.jpg", format="PNG")
    report = load_index(tmp_path / "a.json", tmp_path / "images").report
    assert "images of another format than their suffix says: 1 (10.jpg is PNG)" in str(report)
