"""Real files that break loaders keep the promises of ``odd_images``; they are skipped where the files are not."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.reliability import odd_images
from tests.reliability.odd_images import BROKEN, Tried, broken_files, labels_of_stored_pixels, one_picture, whole_files

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about damaged metadata


def test_whole_files_have_their_upright_size(shared_data: Path) -> None:
    assert whole_files(shared_data / "odd_images") == Tried("the upright size, as stated", 46, [])


def test_all_orientations_show_one_picture_with_its_boxes(shared_data: Path) -> None:
    tried = one_picture(shared_data / "odd_images")
    assert tried.files == 7 + 9 and tried.broken == []


def test_broken_files_are_refused_by_name(shared_data: Path) -> None:
    folder = shared_data / "odd_images"
    there = {path.name for path in (folder / "broken").iterdir()}
    assert set(BROKEN) == there | {"does_not_exist.jpg"}
    assert broken_files(folder).broken == []


def test_labels_that_ignore_exif_are_named(shared_data: Path) -> None:
    assert labels_of_stored_pixels(shared_data / "odd_images").broken == []


def test_what_is_handled_wrongly_is_seen(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The promises can break: with a decoder that ignores EXIF, and with labels that are as they should be."""
    folder = shared_data / "odd_images"
    monkeypatch.setattr(odd_images, "_sample", lambda index, row: (np.full((4, 4), row * 9), index.boxes_of(row)[0]))
    assert "hopper_orientation_3.jpg: another picture, 9 off" in one_picture(folder).broken
    monkeypatch.setattr(odd_images, "_refusal", lambda path: f"{path.name} is decoded")
    assert len(broken_files(folder).broken) == len(BROKEN)
    (tmp_path / "rawframe").symlink_to(folder / "rawframe")
    (tmp_path / "annotations").mkdir()
    document = json.loads((folder / "annotations" / "instances_rawframe.json").read_text())
    document["images"] = [image for image in document["images"] if image["id"] not in (3, 5)]
    document["annotations"] = [box for box in document["annotations"] if box["image_id"] not in (3, 5)]
    (tmp_path / "annotations" / "instances_rawframe.json").write_text(json.dumps(document))
    assert labels_of_stored_pixels(tmp_path).broken == ["nothing was found"]
