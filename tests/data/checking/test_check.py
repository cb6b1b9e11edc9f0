"""All splits checked and compared, links that lead out of the root, and what is kept of image files between runs."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detkit.data.checking.check import check_splits
from detkit.data.checking.show import to_json
from detkit.data.findings import PLACES_KEPT, Finding, Findings, Place
from detkit.data.formats.layout import find_layout
from detkit.data.images import header_cache as check_cache
from detkit.data.images.header import ImageHeader, read_header
from detkit.data.index.coco_index import load_index
from detkit.data.index.image_folder import read_folder
from detkit.data.modules.coco_datamodule import CocoDataModule
from detkit.errors import DataError
from tests.helpers.small_set import write_split

Counted = list[str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A train split of five images and a val split of three, none of them the same."""
    root = tmp_path / "set"
    write_split(root, "train", 5)
    write_split(root, "val", 3, size_hw=(64, 96))
    return root


def change(file: Path, edit: Callable[[Any], object]) -> None:
    document = json.loads(file.read_text())
    edit(document)
    file.write_text(json.dumps(document))


def kinds(root: Path, **options: Any) -> dict[str, dict[str, Finding]]:
    checked = check_splits(find_layout(root), root, **options)
    return {name: {finding.kind: finding for finding in split.report.findings} for name, split in checked.items()}


def test_all_splits_are_read_though_one_is_unusable(root: Path) -> None:
    (root / "annotations/instances_train.json").write_text("[")
    (root / "val/1.png").unlink()
    checked = check_splits(find_layout(root), root)
    assert {name: split.index for name, split in checked.items()} == {"train": None, "val": None}
    assert [finding.kind for finding in checked["train"].report.findings] == ["json-invalid"]
    [missing] = checked["val"].report.findings
    assert missing.kind == "image-missing" and missing.places == (Place("image 11: 1.png", "1.png", 11),)
    with pytest.raises(DataError, match=r"train\.json cannot be used:(.|\n)*val\.json cannot be used:(.|\n)*1\.png"):
        CocoDataModule(root=str(root)).prepare()


def test_the_same_picture_in_two_splits(root: Path) -> None:
    """By content: a name says nothing, a size alone says nothing."""
    assert "image-in-two-splits" not in kinds(root)["val"]
    shutil.copy(root / "train/4.png", root / "val/2.png")
    change(root / "annotations/instances_val.json", lambda d: d["images"][2].update(width=128, height=96))
    finding = kinds(root)["val"]["image-in-two-splits"]
    assert finding.level == "notice" and finding.places == (Place("2.png is 4.png", "2.png", 12),)
    content = (root / "train/4.png").read_bytes()
    end = bytearray(content)
    place = len(content) // 2
    end[place] ^= 1  # same size; the same beginning and end, where the file is large
    (root / "val/2.png").write_bytes(end)
    assert "image-in-two-splits" not in kinds(root)["val"]


def test_large_files_that_differ_in_the_middle(tmp_path: Path) -> None:
    for name, middle in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / name).write_bytes(b"x" * 9000 + middle + b"x" * 9000)
    ends, digests = (read(tmp_path, ["a", "b", "c"]) for read in (check_cache.read_ends, check_cache.read_digests))
    assert len(set(ends)) == 1 and digests[0] == digests[2] != digests[1]


def test_validation_on_the_training_split_is_told(root: Path) -> None:
    split = find_layout(root)["train"]
    checked = check_splits({"train": split, "val": split}, root)
    assert "images of val that are in train too, byte for byte: 5 (0.png is 0.png" in str(checked["val"].report)


def test_classes_of_one_split(root: Path) -> None:
    for split, category in (("train", 5), ("val", 7)):
        change(
            root / f"annotations/instances_{split}.json",
            lambda d, category=category: [record.update(category_id=category) for record in d["annotations"]],
        )
    found = kinds(root)
    assert str(found["val"]["class-not-in-train"]).endswith("so never learned: 1 (other)")
    assert str(found["train"]["class-only-in-train"]).endswith("none in val, so never measured: 1 (thing)")


def test_categories_that_differ_are_an_error(root: Path) -> None:
    change(root / "annotations/instances_val.json", lambda d: d["categories"][0].update(name="thong"))
    checked = check_splits(find_layout(root), root)
    assert checked["train"].index is not None and checked["val"].index is None
    with pytest.raises(DataError, match="category 5 is 'thing' in train, 'thong' in val"):
        raise checked["val"].error()


def move_out(root: Path, name: str) -> Path:
    """A file or folder of the set moved beside it, and a link left in its place."""
    target = root.parent / "elsewhere"
    (root / name).rename(target)
    (root / name).symlink_to(target)
    return target


def test_a_link_out_of_the_root_is_refused_unless_allowed(root: Path) -> None:
    target = move_out(root, "train/1.png")
    finding = kinds(root)["train"]["image-leaves-root"]
    assert finding.level == "error" and "set data.follow_links=true" in finding.remedy
    assert finding.places == (Place(f"image 11: 1.png is {target}", "1.png", 11),)
    with pytest.raises(DataError, match=r"a symbolic link leads to, outside of .*set: 1; (.|\n)*image 11: 1\.png is"):
        CocoDataModule(root=str(root)).prepare()
    assert "image-leaves-root" not in kinds(root, follow_links=True)["train"]
    CocoDataModule(root=str(root), follow_links=True).prepare()


def test_a_linked_folder_leads_out_too(root: Path) -> None:
    target = move_out(root, "train")
    finding = kinds(root)["train"]["image-leaves-root"]
    assert finding.number == 5 and finding.places[0].text == f"image 10: 0.png is {target / '0.png'}"


def test_links_inside_of_the_root_and_a_linked_root_are_fine(root: Path, tmp_path: Path) -> None:
    (root / "pool").mkdir()
    (root / "train/1.png").rename(root / "pool/1.png")
    (root / "train/1.png").symlink_to("../pool/1.png")
    (tmp_path / "link").symlink_to(root)
    assert not any(finding.level == "error" for finding in kinds(tmp_path / "link")["train"].values())
    with pytest.raises(DataError, match=r"outside of .*train: 1"):  # no root is known, so the folder is it
        load_index(root / "annotations/instances_train.json", root / "train")


def test_links_that_lead_nowhere_or_in_a_circle(root: Path) -> None:
    for name, target in (("1.png", "gone.png"), ("2.png", "2.png")):
        (root / "train" / name).unlink()
        (root / "train" / name).symlink_to(target)
    finding = kinds(root)["train"]["image-unreadable"]
    assert [place.image_id for place in finding.places] == [11, 12]
    assert "1.png: cannot be read: No such file" in finding.places[0].text
    assert "2.png: cannot be read: Too many levels of symbolic links" in finding.places[1].text


def test_a_pipe_does_not_hang(root: Path) -> None:
    (root / "train/1.png").unlink()
    os.mkfifo(root / "train/1.png")
    assert "1.png: not a file, but a folder, a pipe" in kinds(root)["train"]["image-unreadable"].places[0].text


def test_image_folders_refuse_links_too(root: Path) -> None:
    (root / "classes/a").mkdir(parents=True)
    shutil.copy(root / "val/0.png", root / "classes/a/0.png")
    (root / "classes/b").symlink_to(root / "val")
    with pytest.raises(DataError, match=r"outside of .*classes: 3"):
        read_folder(root / "classes")
    assert (
        len(read_folder(root / "classes", root).labels)
        == len(read_folder(root / "classes", follow_links=True).labels)
        == 4
    )


def test_places_beyond_the_cap_are_counted() -> None:
    findings = Findings(Path("a.json"))
    findings.notice("kind", "things", PLACES_KEPT + 7, (Place(str(number)) for number in range(PLACES_KEPT + 7)))
    [finding] = findings.found
    assert len(finding.places) == PLACES_KEPT and finding.number == PLACES_KEPT + 7
    assert str(finding) == "things: 10,007 (0, 1, 2, 3, 4, and 10,002 more)"


def test_json_has_every_place(root: Path) -> None:
    change(root / "annotations/instances_train.json", lambda d: [r["bbox"].__setitem__(2, 0) for r in d["annotations"]])
    told = json.loads(to_json(check_splits(find_layout(root), root)))
    [repaired] = [finding for finding in told["train"]["findings"] if finding["kind"] == "box-without-area"]
    assert told["train"]["usable"] and repaired["level"] == "repaired"
    assert [(place["annotation_id"], place["image_id"], place["file"]) for place in repaired["places"]] == [
        (1, 11, "1.png"),
        (2, 12, "2.png"),
        (3, 12, "2.png"),
        (4, 14, "4.png"),
    ]


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counted:
    """A cache of its own that keeps even small sets; the names of files whose header was read."""
    names: Counted = []

    def counted(path: Path) -> ImageHeader:
        names.append(path.name)
        return read_header(path)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(check_cache, "MIN_CACHED_FILES", 1)
    monkeypatch.setattr(check_cache, "read_header", counted)
    return names


def cache_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache/detkit/checks").iterdir())


def test_only_changed_files_are_read_again(root: Path, reads: Counted) -> None:
    first = kinds(root)
    assert sorted(reads) == sorted([*(f"{row}.png" for row in range(5)), "0.png", "1.png", "2.png"])
    before = list(root.rglob("*"))
    reads.clear()
    assert kinds(root) == first and reads == []
    stat = (root / "train/3.png").stat()
    (root / "train/3.png").write_bytes(b"x" * stat.st_size)
    os.utime(root / "train/3.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a copy that keeps times
    assert kinds(root)["train"]["image-unreadable"].number == 1 and reads == ["3.png"]
    reads.clear()
    assert kinds(root)["train"]["image-unreadable"].number == 1 and reads == ["3.png"]  # errors are not kept
    assert set(root.rglob("*")) == set(before)  # nothing is written beside the data


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "folder", "other"])
def test_a_damaged_cache_is_made_anew(root: Path, tmp_path: Path, reads: Counted, damage: str) -> None:
    first = kinds(root)
    for path in cache_files(tmp_path):
        content = bytearray(path.read_bytes())
        if damage == "folder":
            path.unlink()
            path.mkdir()
            continue
        if damage == "flipped":
            content[-len(content) // 3] ^= 4
        path.write_bytes({"cut": content[:-7], "flipped": content, "empty": b"", "other": b"{}"}[damage])
    reads.clear()
    assert kinds(root) == first and len(reads) == 8
    assert [path.name for path in cache_files(tmp_path) if not path.name.endswith(".json")] == []


def test_a_cache_that_cannot_be_written_is_done_without(root: Path, tmp_path: Path, reads: Counted) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert kinds(root) == kinds(root) and len(reads) == 16


def test_another_limit_of_pixels_reads_again(root: Path, reads: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "image-unreadable" not in kinds(root)["train"] and len(reads) == 8
    monkeypatch.setenv("DETKIT_MAX_PIXELS", "10000")
    assert kinds(root)["train"]["image-unreadable"].number == 5
