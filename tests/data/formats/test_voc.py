"""Pascal VOC: boxes by hand, pixels and edges, difficult objects, classes of all splits, and every fault by name."""

import time
from pathlib import Path

import numpy as np
import pytest

from detkit.data.findings import Finding
from detkit.data.formats.layout import find_layout
from detkit.data.index.coco_index import CocoIndex, load_index
from detkit.errors import DataError
from tests.helpers.label_sets import voc_object, voc_xml, write_image, write_voc

ENTITIES = "".join(f'<!ENTITY a{number} "{f"&a{number - 1};" * 10}">' for number in range(1, 12))
BOMB = f'<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY a0 "boom">{ENTITIES}]><annotation>&a11;</annotation>'


def read(root: Path, split: str = "train") -> CocoIndex:
    return load_index(*find_layout(root)[split], root)


def told(index: CocoIndex, kind: str) -> Finding:
    """The finding of a kind; there is one."""
    [finding] = [finding for finding in index.report.findings if finding.kind == kind]
    return finding


def test_golden(tmp_path: Path) -> None:
    """The whole image of 200 x 100 is (1, 1, 200, 100); one pixel, the third of the second row, is (3, 2, 3, 2)."""
    write_voc(
        tmp_path,
        {
            "b.png": voc_xml(voc_object("dog", (1, 1, 200, 100)), voc_object(" cat ", (3, 2, 3, 2))),
            "a.png": voc_xml(voc_object("cat", ("45.5", " 10\n", "60.25", "1e2"))),
        },
    )
    write_image(tmp_path / "JPEGImages/of another split.png")
    index = read(tmp_path)
    truth = index.ground_truth()
    assert truth.boxes_xywh.tolist() == [[44.5, 9, 15.75, 91], [0, 0, 200, 100], [2, 1, 1, 1]]
    assert [index.path(row).name for row in range(len(index))] == ["a.png", "b.png"]
    assert truth.labels.tolist() == [0, 1, 0]
    assert truth.class_names == ("cat", "dog")
    assert truth.category_ids.tolist() == [1, 2]
    assert truth.image_ids.tolist() == [1, 2]
    assert truth.image_rows.tolist() == [0, 1, 1]
    assert truth.areas.tolist() == [15.75 * 91, 20000, 1]
    assert truth.sizes_hw.tolist() == [[100, 200]] * 2
    assert not truth.crowd.any()
    assert [finding.kind for finding in index.report.findings] == ["box-tiny"]


def test_edges_from_0(tmp_path: Path) -> None:
    """No pixel of VOC has the number 0. Where one box begins there, all corners are edges, in the other split too."""
    write_voc(tmp_path, {"a.png": voc_xml(voc_object("cat", (0, 20, 200, 100)), voc_object("cat", (10, 20, 30, 40)))})
    write_voc(tmp_path, {"b.png": voc_xml(voc_object("cat", (50, 60, 70, 80)))}, "val")
    index = read(tmp_path)
    assert index.ground_truth().boxes_xywh.tolist() == [[0, 20, 200, 80], [10, 20, 20, 20]]
    assert str(told(index, "counted-from-0")).endswith(": 1 (a.xml object 1)")
    val = read(tmp_path, "val")
    assert val.ground_truth().boxes_xywh.tolist() == [[50, 60, 20, 20]]
    assert str(told(val, "counted-from-0")).endswith(f": 1 ({tmp_path}/Annotations/a.xml object 1)")


def test_a_negative_corner_is_no_sign_of_edges(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a.png": voc_xml(voc_object("cat", (-4, 1, 20, 20)))})
    index = read(tmp_path)
    assert index.ground_truth().boxes_xywh.tolist() == [[-5, 0, 25, 20]]
    assert told(index, "box-over-edge").places[0].text == "annotation 1 (a.xml object 1)"


def test_difficult_objects_are_neither_object_nor_background(tmp_path: Path) -> None:
    write_voc(
        tmp_path,
        {
            "a.png": voc_xml(
                voc_object("cat", (1, 1, 20, 20), "<difficult>1</difficult>"),
                voc_object("cat", (1, 1, 30, 30), "<difficult>0</difficult>"),
                voc_object("cat", (1, 1, 40, 40)),
            )
        },
    )
    index = read(tmp_path)
    assert index.crowd.tolist() == [True, False, False]
    assert str(told(index, "object-difficult")) == (
        "difficult objects, neither object nor background, as in VOC's evaluation: 1 (a.xml object 1)"
    )


def test_what_is_lost_is_counted_by_name(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    unsaid = "<pose>Unspecified</pose><truncated>0</truncated><occluded> 0 </occluded>"
    write_voc(
        tmp_path,
        {
            "a.png": voc_xml(
                voc_object("cat", (1, 1, 9, 9), "<pose>Left</pose><truncated>1</truncated>"),
                voc_object("cat", (2, 1, 9, 9), f"<truncated>1</truncated>{part}{part}"),
                voc_object("cat", (3, 1, 9, 9), unsaid),
            )
        },
    )
    index = read(tmp_path)
    assert str(told(index, "lost-attribute")) == (
        "what objects have besides a name, a box and difficult, which is not read: 3 "
        "(part 2 times, pose 1 times, truncated 2 times)"
    )
    assert index.class_names == ("cat",)  # the head is no class


def test_classes_are_those_of_all_splits(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a.png": voc_xml(voc_object("zebra", (1, 1, 9, 9)))})
    write_voc(tmp_path, {"b.png": voc_xml(voc_object("ant", (1, 1, 9, 9)))}, "val")
    train, val = read(tmp_path), read(tmp_path, "val")
    assert train.class_names == val.class_names == ("ant", "zebra")
    assert (train.labels.tolist(), val.labels.tolist()) == ([1], [0])
    assert told(train, "class-without-boxes").places[0].text == "ant"


def test_xml_beside_the_images(tmp_path: Path) -> None:
    """As Roboflow writes it: train/, valid/ and test/, whose classes are those of all three."""
    for split, name in (("train", "zebra"), ("valid", "ant"), ("test", "bee")):
        write_image(tmp_path / split / "a.jpg")
        (tmp_path / split / "a.xml").write_text(voc_xml(voc_object(name, (1, 1, 9, 9))))
    assert {name: read(tmp_path, name).labels.tolist() for name in find_layout(tmp_path)} == {
        "train": [2],
        "val": [0],
        "test": [1],
    }


@pytest.mark.parametrize("size", ["", "<size/>", "<size><width>0</width><height>0</height></size>"])
def test_a_size_that_is_not_said_is_the_files(tmp_path: Path, size: str) -> None:
    write_voc(tmp_path, {"a.png": voc_xml(voc_object("cat", (1, 1, 9, 9)), size=size)})
    index = read(tmp_path)
    assert index.sizes_hw.tolist() == [[100, 200]]
    assert str(told(index, "size-missing")) == "files without a size, taken from their images: 1 (a.xml)"


def test_a_size_that_is_not_the_files(tmp_path: Path) -> None:
    size = "<size><width>100</width><height>200</height></size>"
    write_voc(tmp_path, {"a.png": voc_xml(voc_object("cat", (1, 1, 9, 9)), size=size)})
    with pytest.raises(DataError, match=r"a\.png is 200 x 100, not 100 x 200"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("xml", "match"),
    [
        (voc_xml("<object><bndbox/></object>"), r"objects without a name: 1; .*\n +a\.xml object 1"),
        (voc_xml(voc_object(" ", (1, 1, 2, 2))), r"without a name: 1"),
        (voc_xml("<object><name>cat</name></object>"), r"objects whose bndbox .*: 1; .*\n +a\.xml object 1: none"),
        (voc_xml("<object><name>c</name><bndbox><xmin>1</xmin></bndbox></object>"), r"object 1: xmin 1$"),
        (voc_xml(voc_object("cat", (1, "x", 2, 2))), r"object 1: xmin 1, ymin x, xmax 2, ymax 2"),
        (voc_xml(voc_object("cat", (1, "nan", 2, 2))), r"object 1: xmin 1, ymin nan"),
        (voc_xml(voc_object("cat", (1, 1, "inf", 2))), r"object 1: .*xmax inf"),
        (voc_xml(voc_object("cat", (1, 1, "2_0", 2))), r"object 1: .*xmax 2_0"),
        (
            voc_xml(voc_object("cat", (30, 1, 20, 20))),
            r"end before they begin: 1; .*\n +a\.xml object 1: \(30\.0, 1\.0",
        ),
        (voc_xml(size="<size><width>a</width><height>3</height></size>"), r"a\.xml: height '3', width 'a'"),
        (voc_xml(size="<size><width>-2</width><height>3</height></size>"), r"a\.xml: height '3', width '-2'"),
        (voc_xml(size="<size><width>2.5</width><height>3</height></size>"), r"a\.xml: height '3', width '2\.5'"),
        (voc_xml()[:-5], r"files that are no XML of VOC: 1; .*\n +a\.xml: unclosed token: line 1"),
        ("", r"a\.xml: no element found"),
        ("<svg/>", r"a\.xml: it holds 'svg', not 'annotation'"),
        (b"\x89PNG\r\n\x1a\n", r"a\.xml: not well-formed"),
        ('<?xml version="1.0" encoding="gbk"?><annotation/>', r"a\.xml: multi-byte encodings are not supported"),
        ('<?xml version="1.0" encoding="none-such"?><annotation/>', r"a\.xml: unknown encoding"),
        (BOMB, r"a\.xml: a document type \('annotation'\) is refused"),
        (
            '<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><folder>&x;</folder></annotation>',
            r"a\.xml: a document type",
        ),
        ('<!DOCTYPE annotation SYSTEM "http://127.0.0.1:9/x.dtd"><annotation/>', r"a\.xml: a document type"),
        ("<annotation>&x;</annotation>", r"a\.xml: undefined entity"),
        ("<annotation>" + "<a>" * 100_000, r"a\.xml: no element found"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, xml: str | bytes, match: str) -> None:
    write_voc(tmp_path, {"a.png": xml, "b.png": voc_xml(voc_object("cat", (1, 1, 9, 9)))})
    with pytest.raises(DataError, match=match):
        read(tmp_path)


def test_all_faults_at_once(tmp_path: Path) -> None:
    write_voc(
        tmp_path, {"a.png": "<", "b.png": voc_xml(voc_object("cat", (9, 9, 1, 1)), "<object/>"), "c.png": voc_xml()}
    )
    write_image(tmp_path / "JPEGImages/c.jpg")
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb\nc\nd\n../e\n")
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tmp_path}/ImageSets/Main/train.txt cannot be used:"
    for part in (
        "no XML of VOC: 1;",
        "    b.xml object 1: (9.0, 9.0, 1.0, 1.0)",
        "objects without a name: 1;",
        "    b.xml object 2",
        "listed images that are not there: 2;",
        "    ../e",
        "    c.jpg and c.png",
    ):
        assert sum(part in line for line in lines) == 1, (part, lines)


def test_xml_without_an_image_and_image_without_xml(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a.png": voc_xml(voc_object("cat", (1, 1, 9, 9))), "b.png": None})
    (tmp_path / "ImageSets/Main/train.txt").unlink()
    index = read(tmp_path)
    assert str(told(index, "no-label-file")) == "images without a label file, used as background: 1 (b.png)"
    assert index.sizes_hw.tolist() == [[100, 200]] * 2
    (tmp_path / "Annotations/lost.xml").write_text(voc_xml())
    with pytest.raises(DataError, match=r"label files without an image: 1; .*\n +lost\.xml"):
        read(tmp_path)
    for file in (tmp_path / "Annotations").iterdir():
        file.unlink()
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"none of the 2 images in .* has an XML file; a\.xml is missing, for example"):
        read(tmp_path)


@pytest.mark.parametrize("boxes", [0, 3])
def test_no_box_in_the_split(tmp_path: Path, boxes: int) -> None:
    """Classes come from the other split; a set without any has nothing to learn."""
    write_voc(tmp_path, {"a.png": voc_xml()})
    others = [voc_object("cat", (1, 1, 9 + number, 9)) for number in range(boxes)]
    write_voc(tmp_path, {"b.png": voc_xml(*others)}, "val")
    if boxes:
        assert (len(read(tmp_path)), read(tmp_path).class_names) == (1, ("cat",))
    else:
        with pytest.raises(DataError, match="lists no categories"):
            read(tmp_path)


def test_many_objects_in_seconds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(1, 90, (20_000, 2, 2)), axis=1).reshape(-1, 4)
    write_voc(tmp_path, {"a.png": voc_xml(*(voc_object("cat", each) for each in corners.tolist()))})
    start = time.process_time()
    index = read(tmp_path)
    assert time.process_time() - start < 10  # of CPU time; it would be minutes if each object looked at all others
    expected = np.column_stack((corners[:, :2] - 1, corners[:, 2:] - corners[:, :2] + 1))
    assert index.ground_truth().boxes_xywh.tolist() == expected.tolist()
