"""Folders and patterns give their files in natural order, or say that there are none."""

import os
from pathlib import Path

import pytest

from detkit.errors import DataError
from detkit.inference.input.file_lists import image_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("10.jpg", "2.JPG", "1.txt", "b/c/3.png", "b/.hidden/4.png", "b/._5.png", "a 7.webp", "b/6.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(folder: Path, found: list[Path] | None) -> list[str]:
    assert found is not None
    return [path.relative_to(folder).as_posix() for path in found]


def test_a_folder_gives_its_images_in_natural_order(folder: Path) -> None:
    assert names(folder, image_files(folder)) == ["2.JPG", "10.jpg", "a 7.webp", "b/c/3.png"]
    assert names(folder, image_files(folder, {".mp4", ".txt"})) == ["1.txt", "b/6.mp4"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["10.jpg"]),
        ("[0-9]*", ["1.txt", "2.JPG", "10.jpg"]),
        ("**/*.png", ["b/c/3.png"]),
        ("?/*/*.png", ["b/c/3.png"]),
    ],
)
def test_a_pattern_gives_what_fits_and_no_folder(folder: Path, pattern: str, expected: list[str]) -> None:
    assert names(folder, image_files(folder / pattern)) == expected


def test_one_file_stands_for_itself(folder: Path) -> None:
    """Also one whose name looks like a pattern, and one that is not there."""
    odd = folder / "a[1].jpg"
    odd.touch()
    assert image_files(odd) is image_files(folder / "10.jpg") is image_files(folder / "absent.jpg") is None


def test_nothing_found_is_an_error(folder: Path) -> None:
    with pytest.raises(DataError, match=r"b/\.hidden: no file in it or its subfolders ends with one of \.a$"):
        image_files(folder / "b" / ".hidden", {".a"})
    with pytest.raises(DataError, match=r"/\*\.bmp: no file fits this pattern"):
        image_files(folder / "*.bmp")


def test_folders_behind_links_are_searched_once(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Under their own names, where they have one here; a link that leads back ends there."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "8.jpg").touch()
    for place, target in (
        ("a/to_b", folder / "b"),
        ("a/up", folder),
        ("out", elsewhere),
        ("out_again", elsewhere),
        (".hidden", elsewhere),
        ("broken", folder / "gone"),
    ):
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).symlink_to(target)
    (elsewhere / "back").symlink_to(folder)
    (folder / "9.jpg").symlink_to(elsewhere / "8.jpg")
    expected = ["2.JPG", "9.jpg", "10.jpg", "a 7.webp", "b/c/3.png", "out/8.jpg"]
    assert names(folder, image_files(folder)) == expected
    (folder / "b" / "c" / "3.png").unlink()
    assert "b/c/3.png" not in names(folder, image_files(folder))


def test_names_need_not_be_text(folder: Path) -> None:
    latin = os.fsdecode(b"caf\xe9.jpg")
    (folder / latin).touch()
    assert latin in names(folder, image_files(folder))
