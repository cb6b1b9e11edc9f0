"""What source= names: which files, in which order, under which names; and videos, frame by frame."""

import os
import resource
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from detkit.data.formats.label_files import MAX_BYTES
from detkit.errors import DataError, StorageError
from detkit.inference.input.sources import ImageFile, find_sources
from detkit.inference.input.video import FPS, Camera, VideoFile, VideoWriter
from tests.helpers.videos import SIZE_HW, number_in, numbered, write_video


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names_of(source: str | Path) -> list[str]:
    return [found.name for found in find_sources(str(source))]


@pytest.fixture
def file_limit() -> Iterator[int]:
    """No file grows beyond this, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield 20_000
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_folder_in_natural_order_without_what_is_hidden_or_other(tmp_path: Path) -> None:
    touch(tmp_path, "10.jpg", "9.PNG", "b/2.webp", "b/clip.mp4", ".hidden.jpg", ".git/a.jpg", "notes.txt", "Thumbs.db")
    found = find_sources(str(tmp_path))
    assert [source.name for source in found] == ["9.PNG", "10.jpg", "b/2.webp", "b/clip.mp4"]
    assert [type(source) for source in found] == [ImageFile, ImageFile, ImageFile, VideoFile]
    assert isinstance(found[2], ImageFile) and found[2].path == tmp_path / "b" / "2.webp"


def test_pattern(tmp_path: Path) -> None:
    touch(tmp_path, "a/1/x10.jpg", "a/1/x9.jpg", "a/2/x1.png", "a/y.jpg")
    assert names_of(tmp_path / "a" / "*" / "*.jpg") == ["x9.jpg", "x10.jpg"]
    assert names_of(tmp_path / "**" / "x*") == ["1/x9.jpg", "1/x10.jpg", "2/x1.png"]


def test_a_file_with_the_letters_of_a_pattern_is_itself(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].jpg", "a1.jpg")
    assert names_of(tmp_path / "a[1].jpg") == ["a[1].jpg"]


def test_list_is_relative_to_its_file_and_keeps_its_order(tmp_path: Path) -> None:
    """Two pictures of one name get the folders that tell them apart; a picture that is named twice is taken once."""
    elsewhere = tmp_path / "y" / "1.jpg"
    lines = ["x/2.jpg", "", f"{elsewhere}  ", "x/1.jpg", "x/../x/2.jpg", "gone.jpg"]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8-sig")
    found = find_sources(str(tmp_path / "list.txt"))
    assert [source.name for source in found] == ["x/2.jpg", "y/1.jpg", "x/1.jpg", "gone.jpg"]
    with pytest.raises(DataError, match=r"gone\.jpg: cannot be read: No such file"):
        list(found[-1].frames())


def test_a_list_may_name_very_many(tmp_path: Path) -> None:
    """More than a file of labels has lines for."""
    file, number, folder = tmp_path / "list.txt", 4_500, "a" * 200
    file.write_text("".join(f"{folder}/{folder}/{'./' * 750}{n}.jpg\n" for n in range(number)))
    assert file.stat().st_size > MAX_BYTES
    assert len(find_sources(str(file))) == number


def test_number_is_a_camera_unless_there_is_such_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_sources("9871") == [Camera(9871)]
    touch(tmp_path, "9871/a.jpg")
    assert names_of("9871") == ["a.jpg"]


def test_one_picture_is_read_as_everywhere(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    [source] = find_sources(str(tmp_path / "a.png"))
    [frame] = source.frames()
    assert np.array_equal(frame.image, image)
    assert (frame.name, frame.number, frame.time_s, source.length) == ("a.png", None, None, 1)


def test_what_names_nothing_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "empty/notes.md", "empty.txt")
    (tmp_path / "binary.txt").write_bytes(b"a.jpg\n\xff\xfe")
    for source, message in (
        ("none.jpg", r"source=.*none\.jpg: there is no such file or folder"),
        ("empty", r"empty: no file in it or its subfolders ends with one of .*\.jpg.*\.mp4"),
        ("*.tiff", r"\*\.tiff: no file fits this pattern"),
        ("empty.txt", r"empty\.txt: names no file; it needs a path in every line"),
        ("binary.txt", r"binary\.txt: must be UTF-8 text; byte 6 is not"),
    ):
        with pytest.raises(DataError, match=message):
            find_sources(str(tmp_path / source))


def test_text_called_jpg_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("hello world")
    [source] = find_sources(str(tmp_path / "a.jpg"))
    with pytest.raises(DataError, match=r"a\.jpg: not an image: it begins with b'hello wo'"):
        list(source.frames())


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mp4v"), ("a.avi", "MJPG")])
def test_video_gives_every_frame_in_order(tmp_path: Path, name: str, codec: str) -> None:
    [video] = find_sources(str(write_video(tmp_path / name, 300, 30.0, codec)))
    assert video.length == 300
    frames = list(video.frames())
    assert [number_in(frame.image) for frame in frames] == list(range(300))
    assert [frame.number for frame in frames] == list(range(300))
    assert [frame.time_s for frame in frames] == pytest.approx([number / 30 for number in range(300)])
    assert {(frame.fps, frame.name, frame.image.shape) for frame in frames} == {(30.0, name, (*SIZE_HW, 3))}


def test_video_is_rgb(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 25, SIZE_HW) as writer:
        writer.write(np.full((*SIZE_HW, 3), (200, 100, 0), np.uint8))
    frames = list(VideoFile(tmp_path / "a.mp4", "a").frames())
    assert len(frames) == 1
    assert frames[0].image.mean((0, 1)) == pytest.approx((200, 100, 0), abs=4)
    assert cv2.VideoCapture(str(tmp_path / "a.mp4")).read()[1].mean((0, 1)) == pytest.approx((0, 100, 200), abs=4)


def test_memory_does_not_grow_with_a_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 300)
    frame_bytes = np.prod((*SIZE_HW, 3))
    tracemalloc.start()
    with VideoWriter(tmp_path / "b.mp4", 25, SIZE_HW) as writer:
        for frame in VideoFile(path, "a.mp4").frames():
            writer.write(frame.image)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert frame_bytes < peak < 20 * frame_bytes
    assert VideoFile(tmp_path / "b.mp4", "b.mp4").length == 300


def test_unreadable_video_is_told_after_what_can_be_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What FFmpeg and OpenCV say themselves is kept from the terminal."""
    (tmp_path / "text.mp4").write_text("hello world")
    whole = write_video(tmp_path / "whole.avi", 100, codec="MJPG").read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    for name, message in (
        ("text.mp4", r"text\.mp4: is no video that can be read, or has no frames"),
        ("gone.mp4", r"gone\.mp4: there is no such file"),
        (".", r"is no file"),
    ):
        with pytest.raises(DataError, match=message):
            list(VideoFile(tmp_path / name, name).frames())
    with pytest.raises(DataError, match="source=9871: there is no such file or folder, and no camera of this number"):
        list(Camera(9871).frames())
    seen = []
    with pytest.raises(DataError, match=r"cut\.avi: \d\d frames can be read, its header says 100: it is cut or dam"):
        seen.extend(number_in(frame.image) for frame in VideoFile(tmp_path / "cut.avi", "cut.avi").frames())
    assert len(seen) > 30
    assert seen == list(range(len(seen)))
    assert capfd.readouterr() == ("", "")


def test_video_without_a_rate_is_written_with_the_usual_one(tmp_path: Path) -> None:
    assert Camera(0).name == "camera_0.mp4"
    with VideoWriter(tmp_path / "a.mp4", FPS, SIZE_HW) as writer:
        writer.write(numbered(0))
    assert cv2.VideoCapture(str(tmp_path / "a.mp4")).get(cv2.CAP_PROP_FPS) == FPS


def test_odd_sides_and_other_sizes_lose_no_frame(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 25, (49, 65)) as writer:
        for size_hw in ((49, 65), (49, 65), (100, 20)):
            writer.write(np.full((*size_hw, 3), 77, np.uint8))
    frames = list(VideoFile(tmp_path / "a.mp4", "a").frames())
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 3


def test_video_that_cannot_be_written_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StorageError, match=r"gone/a\.mp4: cannot be written: no video of 128 x 96 pixels"):
        VideoWriter(tmp_path / "gone" / "a.mp4", 25, SIZE_HW)
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("file_limit")
def test_video_that_lost_frames_to_a_full_disk_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0)
    writer = VideoWriter(tmp_path / "a.mp4", 25, SIZE_HW)
    for _ in range(50):
        writer.write(noise.integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8))
    with pytest.raises(StorageError, match=r"a\.mp4: cannot be written: the file has \d+ of 50 frames; free space"):
        writer.close()
    assert os.path.getsize(tmp_path / "a.mp4") <= 20_000  # noqa: PTH202
    assert capfd.readouterr() == ("", "")
