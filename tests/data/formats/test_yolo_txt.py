"""YOLO-txt: boxes by hand, the layouts in use, what cannot be carried over, and every fault by file and line."""

import os
from pathlib import Path

import numpy as np
import pytest

from detkit.data.findings import Finding
from detkit.data.formats.data_yaml import read_yaml
from detkit.data.formats.layout import find_layout
from detkit.data.index.coco_index import CocoIndex, load_index
from detkit.errors import DataError
from tests.helpers.label_sets import YAML, write_image, write_yolo


def read(root: Path, split: str = "train") -> CocoIndex:
    return load_index(*find_layout(root)[split], root)


def told(index: CocoIndex, kind: str) -> Finding:
    """The finding of a kind; there is one."""
    [finding] = [finding for finding in index.report.findings if finding.kind == kind]
    return finding


def kinds(index: CocoIndex) -> set[str]:
    return {finding.kind for finding in index.report.findings}


def test_golden(tmp_path: Path) -> None:
    """200 x 100 pixels: a centre of (0.5, 0.4) is (100, 40), a size of (0.2, 0.5) is 40 x 50."""
    write_yolo(
        tmp_path,
        {
            "b.png": "1 0.5 0.4 0.2 0.5\r\n\r\n0.0 0.25 0.25 0.5 0.5  \r\n",
            "a.png": "",
            "deep/c.png": "\ufeff0\t0.75 0.5 0.5 1\n",
        },
    )
    index = read(tmp_path)
    assert [str(index.path(row).relative_to(tmp_path / "images/train")) for row in range(3)] == [
        "a.png",
        "b.png",
        "deep/c.png",
    ]
    truth = index.ground_truth()
    np.testing.assert_allclose(truth.boxes_xywh, [[80, 15, 40, 50], [0, 0, 100, 50], [100, 0, 100, 100]], atol=1e-9)
    assert truth.labels.tolist() == [1, 0, 0]
    assert truth.image_ids.tolist() == [1, 2, 3]
    assert truth.image_rows.tolist() == [1, 1, 2]
    assert truth.areas.tolist() == pytest.approx([2000, 5000, 10000])
    assert truth.category_ids.tolist() == [0, 1]
    assert truth.class_names == ("cat", "dog")
    assert truth.sizes_hw.tolist() == [[100, 200]] * 3
    assert not truth.crowd.any()
    assert kinds(index) == {"image-without-boxes"}


def test_labels_are_of_the_upright_picture(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a.jpg": "0 0.5 0.25 1 0.5"})
    write_image(tmp_path / "images/train/a.jpg", (100, 200), orientation=6)
    index = read(tmp_path)
    assert index.sizes_hw.tolist() == [[200, 100]]
    assert index.boxes.tolist() == [[0, 0, 100, 100]]


def test_polygons_and_keypoints_are_counted(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a.png": "0 0.1 0.2 0.3 0.1 0.2 0.6\n1 0.5 0.5 0.5 0.5\n0 0.1 0.2 0.3 0.2 0.3 0.6 0.1 0.6\n"})
    index = read(tmp_path)
    assert index.boxes.tolist() == [[20, 10, 60, 60], [50, 25, 150, 75], [20, 20, 60, 60]]
    polygons = told(index, "lost-polygon")
    assert (polygons.number, [str(place) for place in polygons.places]) == (
        2,
        ["labels/train/a.txt:1", "labels/train/a.txt:3"],
    )
    assert str(polygons).startswith("polygons, of which the bounding box is taken: 2")
    # the same numbers with two keypoints of two numbers each, or three of one
    write_yolo(tmp_path, {"a.png": "0 0.5 0.5 0.2 0.4 0.1 0.9 7 0.3"}, yaml=YAML + "kpt_shape: [2, 2]\n")
    index = read(tmp_path)
    assert index.boxes.tolist() == [pytest.approx([80, 30, 120, 70])]
    assert told(index, "lost-keypoints").number == 1


def test_digits_of_the_text_are_no_box_over_the_edge(tmp_path: Path) -> None:
    """A third of the width, in six digits: the left side is at -0.0000005, which the text cannot say better."""
    write_yolo(tmp_path, {"a.png": "0 0.166666 0.5 0.333333 1.0\n0 0.95 0.5 0.12 0.5\n"})
    index = read(tmp_path)
    assert index.ground_truth().boxes_xywh[0, :2].tolist() == [0, 0]
    assert told(index, "box-over-edge").number == 1
    assert [str(place) for place in told(index, "box-over-edge").places] == ["annotation 2 (labels/train/a.txt:2)"]


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("0 0.5 0.5 0.1", r"lines that are no label: 1; .*\n +labels/train/a\.txt:2: '0 0\.5 0\.5 0\.1'"),
        ("0 0.5 0.5 0.1 0.1 0.2 0.3 0.4", r"no label: 1"),  # neither a box nor pairs
        ("cat 0.5 0.5 0.1 0.1", r"no label: 1; .*\n.*a\.txt:2: 'cat 0\.5"),
        ("0,0.5,0.5,0.1,0.1", r"no label: 1"),
        ("0.5 0.5 0.5 0.1 0.1", r"no label: 1"),
        ("0 0.5 0_5 0.1 0.1", r"no label: 1"),
        ("inf 0.5 0.5 0.1 0.1", r"no label: 1"),
        ("\u09e7 0.5 0.5 0.1 0.1", r"no label: 1"),
        ("nan 0.5 0.5 0.1 0.1", r"no label: 1"),
        ("2 0.5 0.5 0.1 0.1", r"class has no name: 1; .*\n.*a\.txt:2: '2 0\.5"),
        ("-1 0.5 0.5 0.1 0.1", r"class has no name: 1"),
        ("1e300 0.5 0.5 0.1 0.1", r"class has no name: 1"),
        ("0 100 50 40 40", r"outside of \[0, 1\]: 1; divide by .*\n.*a\.txt:2: '0 100 50 40 40'"),
        ("0 0.5 0.5 nan 0.1", r"outside of \[0, 1\]: 1"),
        ("0 0.5 0.5 -0.1 0.1", r"outside of \[0, 1\]: 1"),
        ("0 0.5 0.5 0.1 1e999", r"outside of \[0, 1\]: 1"),
        ("0 0.1 0.1 0.2 0.1 0.2 1.2", r"outside of \[0, 1\]: 1"),
        ("0 0.5 0.5 0.1 0.1 0.93", r"sixth number.*: 1; .*\n.*a\.txt:2: '0 0\.5 0\.5 0\.1 0\.1 0\.93'"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, line: str, match: str) -> None:
    write_yolo(tmp_path, {"a.png": f"0 0.5 0.5 0.1 0.1\n{line}\n"})
    with pytest.raises(DataError, match=match):
        read(tmp_path)


def test_corners_are_suspected(tmp_path: Path) -> None:
    """As (cx, cy, w, h) they would reach over the edge; a single such line is clipped, for it may be meant."""
    corners = ["0 0.1 0.1 0.3 0.4", "0 0.5 0.6 0.9 0.95", "1 0.2 0.7 0.8 0.9", "1 0.0 0.0 0.5 0.5", "1 0.4 0.4 0.5 0.5"]
    write_yolo(tmp_path, {"a.png": "\n".join(corners * 2)})
    with pytest.raises(
        DataError, match=r"by more than a tenth of the image, of 10, which look like x1 y1 x2 y2: 4; YOLO's"
    ):
        read(tmp_path)
    write_yolo(tmp_path, {"a.png": "\n".join(corners)})
    assert told(read(tmp_path), "box-over-edge").number == 4
    write_yolo(tmp_path, {"a.png": "\n".join(corners + ["0 0.5 0.5 0.2 0.2"] * 50)})
    assert "box-over-edge" in kinds(read(tmp_path))


def test_all_faults_at_once(tmp_path: Path) -> None:
    write_yolo(
        tmp_path, {"a.png": "0 0.5 0.5 0.1 0.1\n9 0 0 0 0\n", "b.png": b"\xff\xfe0", "b.jpg": None, "c.png": "x\n" * 30}
    )
    (tmp_path / "images/train/c.png").write_bytes(b"no image")
    (tmp_path / "labels/train/lost.txt").write_text("0 0.5 0.5 0.1 0.1")
    (tmp_path / "labels/train/classes.txt").write_text("cat\ndog")  # as LabelImg leaves it there
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tmp_path}/data.yaml/train cannot be used:"
    for part in (
        "label files that are no text in UTF-8: 2; ",  # of b.png and b.jpg
        "label files without an image: 1; ",
        "    labels/train/lost.txt",
        "    b.jpg and b.png",
        "image files that cannot be read: 1; ",
        "class has no name: 1; ",
        "    labels/train/a.txt:2: '9 0 0 0 0'",
        "lines that are no label: 30; ",
        "    and 20 more",
    ):
        assert sum(part in line for line in lines) == 1, (part, lines)


def test_image_without_a_label_file_is_background(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a.png": "0 0.5 0.5 0.1 0.1", "b.png": None, "c.png": None})
    found = told(read(tmp_path), "no-label-file")
    assert str(found) == "images without a label file, used as background: 2 (b.png, c.png)"
    (tmp_path / "labels/train/a.txt").unlink()
    with pytest.raises(
        DataError, match=r"none of the 3 images in .* has a label file; .*labels/train/a\.txt is missing"
    ):
        read(tmp_path)


def test_no_pipe_is_waited_for_and_no_book_is_read(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a.png": "0 0.5 0.5 0.1 0.1", "b.png": None, "c.png": " " * (8 * 2**20 + 1)})
    os.mkfifo(tmp_path / "labels/train/b.txt")
    with pytest.raises(DataError, match=r"(?s)cannot be read: 2;.*b\.txt: .* not a file.* a pipe.*at most 8,388,608"):
        read(tmp_path)


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a.png": "0 0.5 0.5 0.1 0.1"})
    Path(os.fsdecode(os.fsencode(tmp_path / "images/train") + b"/\xff.png")).touch()
    with pytest.raises(DataError, match=r"1 file names are no UTF-8, such as '\\udcff\.png'"):
        read(tmp_path)


def test_names_of_the_classes(tmp_path: Path) -> None:
    """Numbers stay those of the label files, with gaps; a number may be a name."""
    yaml = "train: images/train\nnames:\n  7: dog\n  0: 1\n  3: 'no'\n"
    write_yolo(tmp_path, {"a.png": "7 0.5 0.5 0.1 0.1\n3 0.5 0.5 0.2 0.2"}, yaml=yaml)
    index = read(tmp_path)
    assert (index.class_names, index.category_ids.tolist()) == (("1", "no", "dog"), [0, 3, 7])
    assert index.labels.tolist() == [2, 1]


@pytest.mark.parametrize("place", ["labels/train", "labels", "."])
def test_without_data_yaml(tmp_path: Path, place: str) -> None:
    write_yolo(tmp_path, {"a.png": "1 0.5 0.5 0.1 0.1"})
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(
        DataError, match=r"names of the classes are missing; put data\.yaml or classes\.txt .* into one of"
    ):
        read(tmp_path)
    (tmp_path / place / "classes.txt").write_text("red blood cell\nplatelets\n")
    index = read(tmp_path)
    assert (index.class_names, index.labels.tolist()) == (("red blood cell", "platelets"), [1])
    assert index.boxes.tolist() == [pytest.approx([90, 45, 110, 55])]


def test_folders_named_in_the_recipe(tmp_path: Path) -> None:
    """As data.train_annotations=labels/train data.train_images=images/train; data.yaml above says the names."""
    write_yolo(tmp_path, {"a.png": "1 0.5 0.5 0.1 0.1"})
    index = load_index(tmp_path / "labels/train", tmp_path / "images/train")
    assert (index.fingerprint, index.class_names) == (read(tmp_path).fingerprint, ("cat", "dog"))


@pytest.mark.parametrize(
    ("yaml", "files"),
    [
        (
            "path: /home/somebody/cats\ntrain: train/images\nval: valid/images\n",
            "train/images/a.png train/labels/a.txt",
        ),
        ("train: ../train/images\nval: ../valid/images\n", "train/images/a.png train/labels/a.txt"),
        ("train: train\\images\n", "train/images/a.png train/labels/a.txt"),
        ("path: sub\ntrain: images\n", "sub/images/a.png sub/labels/a.txt"),
        ("train: ROOT/images/train\n", "images/train/a.png labels/train/a.txt"),
        ("train: images/images/train\n", "images/images/train/a.png images/labels/train/a.txt"),
        ("train: photos\n", "photos/a.png photos/a.txt"),
        ("train: lists/train.txt\n", "images/x/a.png labels/x/a.txt"),
        ("train: [images/x, images/y]\n", "images/x/a.png labels/x/a.txt"),
    ],
)
def test_layouts_of_data_yaml(tmp_path: Path, yaml: str, files: str) -> None:
    root = tmp_path / "set"
    image, label = (root / name for name in files.split())
    write_image(image)
    label.parent.mkdir(parents=True, exist_ok=True)
    label.write_text("1 0.5 0.5 0.1 0.1")
    write_image(root / "images/y/b.png")  # of the last one
    (root / "lists").mkdir()
    (root / "lists/train.txt").write_text("./images/x/a.png\n\nROOT/images/x/a.png\n".replace("ROOT", str(root)))
    (root / "data.yaml").write_text(yaml.replace("ROOT", str(root)) + "names: [cat, dog]\n")
    index = read(root)
    assert index.path(0) == image
    assert index.boxes.tolist() == [pytest.approx([90, 45, 110, 55])]
    assert len(index) == (2 if "[" in yaml else 1)


def test_lists_lead_nowhere_else(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_yolo(root, {"a.png": "0 0.5 0.5 0.1 0.1"}, yaml="train: train.txt\nnames: [cat]\n")
    write_image(tmp_path / "secret.png")
    lines = ["images/train/a.png", "../secret.png", str(tmp_path / "secret.png"), "images/../../secret.png", "a\0.png"]
    (root / "train.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"outside of the data set's folder: 4; .*\n +train\.txt: \.\./secret\.png\n"):
        read(root)
    (root / "train.txt").write_text("images/train/a.png\nimages/train/missing.png\n" + "images/" + "x" * 300 + ".png\n")
    with pytest.raises(
        DataError, match=r"image files that cannot be read: 2; .*\n.*missing\.png: cannot be read: No such"
    ):
        read(root)


@pytest.mark.parametrize("named", ["../other", "/etc", "nowhere", "images/../../other", "x" * 300])
def test_data_yaml_leads_nowhere_else(tmp_path: Path, named: str) -> None:
    root = tmp_path / "set"
    write_image(tmp_path / "other/a.png")
    write_yolo(root, {"a.png": "0 0.5 0.5 0.1 0.1"}, yaml=f"train: {named}\nnames: [cat]\n")
    with pytest.raises(DataError, match=r"data\.yaml: nothing that it names is in .* \(train: .*\); correct path"):
        find_layout(root)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("names: []", r"names: must list the classes, or number them; got \[\]"),
        ("train: x", r"must hold names:"),
        ("- 1", r"data\.yaml:1: must contain keys and values"),
        ("names: [yes, cat]", r"names: class 0 is True, no text; write the name in quotes"),
        ("names: {a: cat}", r"names: a class is numbered from 0; got 'a'"),
        ("names: {-1: cat}", r"names: a class is numbered from 0; got -1"),
        ("names: {99999999999999999999: cat}", r"numbered from 0; got 99999999999999999999"),
        ("names: [cat]\nnc: 2", r"nc: says 2 classes, and names has 1"),
        ("names: [cat]\ntrain: 7", r"train: must name a folder of images.*; got 7"),
        ("names: [cat]\ntrain: [a, null]", r"train: must name .*; got None"),
        ("names: [cat]\npath: [a]", r"path: must be a folder; got \['a'\]"),
        ("names: [cat]\nkpt_shape: 17", r"kpt_shape: must be .*; got 17"),
        ("names: [cat]\nnames: [dog]", r"data\.yaml:2: names is repeated, first in line 1"),
        ("names:\n  0: cat\n  0: dog", r"data\.yaml:3: names\.0 is repeated, first in line 2"),
        ("a: &a [x]\nnames: *a", r"data\.yaml:1: anchors and aliases are not allowed \(got 'a'\)"),
        ("names: !!python/object/apply:os.system [exit]", r"data\.yaml:1: tags are not allowed \(got '.*os\.system'\)"),
        ("names: " + "[" * 50 + "]" * 50, r"data\.yaml:1: at most 16 levels of nesting"),
        ("names: [cat", r"is no YAML"),
        ('names: ["\\ud800"]', r"class 0 is '\\ud800', no text|is no YAML"),
        ("names: [cat] " + " " * 1_000_000, r"has 1,000,013 bytes; at most 1,000,000"),
        (b"names: [\xff]", r"must be UTF-8 text; .* at byte 8"),
        ("names: [" + "yes, " * 12 + "]", r"class 9 is True.*\n  and 2 more$"),
        ("names: [2024-13-45]\nx: 2024-13-45", r"is no YAML"),
    ],
)
def test_faults_of_data_yaml(tmp_path: Path, text: str | bytes, match: str) -> None:
    (tmp_path / "data.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=match):
        read_yaml(tmp_path / "data.yaml")


def test_faults_of_data_yaml_come_together(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: [true]\ntrain: 1\npath: 2\n")
    with pytest.raises(DataError) as caught:
        read_yaml(tmp_path / "data.yaml")
    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]] == ["names", "path", "train"]
