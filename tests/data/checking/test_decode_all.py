"""Every file is decoded and each bad one named, also the one on which a worker dies."""

import io
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from detkit.data.checking import decode_all as module
from detkit.data.checking.decode_all import decode_all
from detkit.data.findings import Finding, Findings

NUMBER = 70  # three workers' first rows, and more for the first of them


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    for row in range(NUMBER):
        cv2.imwrite(str(tmp_path / f"{row}.jpg"), image)
    return tmp_path


def run(folder: Path, num_workers: int | None, number: int = NUMBER) -> tuple[int, dict[str, Finding]]:
    findings, names = Findings(folder / "labels.json"), [f"{row}.jpg" for row in range(number)]
    sizes = np.tile(np.array([[12, 16]], dtype=np.int32), (number, 1))
    good = decode_all(folder, names, 100 + np.arange(number), sizes, findings, num_workers, Console(file=io.StringIO()))
    return good, {finding.kind: finding for finding in findings.found}


@pytest.mark.parametrize("num_workers", [1, 3, None])
def test_good_files_give_no_finding(folder: Path, num_workers: int | None) -> None:
    assert run(folder, num_workers) == (NUMBER, {})


def test_bad_files_are_named_in_order(folder: Path) -> None:
    whole = (folder / "5.jpg").read_bytes()
    (folder / "5.jpg").write_bytes(whole[:-9])
    (folder / "40.jpg").unlink()
    (folder / "7.jpg").write_bytes(b"no picture")
    cv2.imwrite(str(folder / "9.jpg"), np.zeros((16, 12, 3), np.uint8))
    good, found = run(folder, 2)
    assert good == NUMBER - 4 and set(found) == {"image-undecodable", "image-decoded-size"}
    undecodable, resized = found["image-undecodable"], found["image-decoded-size"]
    assert undecodable.level == "error" and undecodable.number == 3
    assert [(place.file, place.image_id) for place in undecodable.places] == [
        ("5.jpg", 105),
        ("7.jpg", 107),
        ("40.jpg", 140),
    ]
    texts = [place.text for place in undecodable.places]
    assert "5.jpg: the JPEG is cut: its end marker is missing" in texts[0] and texts[0].startswith("image 105: ")
    assert "not an image: it begins with b'no pictu'" in texts[1] and "No such file" in texts[2]
    assert [place.text for place in resized.places] == ["image 109: 9.jpg is 12 x 16, not 16 x 12"]


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_worker_that_dies_is_named_with_its_file(
    folder: Path, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a crash of a decoder: the rest of what the worker was given is decoded by others."""

    def decode_or_die(path: Path) -> np.ndarray:
        if path.name in ("3.jpg", "31.jpg"):
            os.kill(os.getpid(), signal.SIGKILL)
        if path.name == "50.jpg":
            os._exit(3)
        return np.zeros((12, 16, 3), np.uint8)

    monkeypatch.setattr(module, "decode_image", decode_or_die)
    good, found = run(folder, num_workers)
    assert good == NUMBER - 3
    assert [place.text for place in found["image-undecodable"].places] == [
        f"image 103: {folder}/3.jpg: the process that decoded it died (SIGKILL)",
        f"image 131: {folder}/31.jpg: the process that decoded it died (SIGKILL)",
        f"image 150: {folder}/50.jpg: the process that decoded it died (exit code 3)",
    ]


def test_no_files_and_no_workers(tmp_path: Path) -> None:
    assert run(tmp_path, 2, number=0) == (0, {})
    with pytest.raises(ValueError, match="num_workers must be at least 1; got 0"):
        run(tmp_path, 0)


def test_bar_only_on_a_terminal(folder: Path) -> None:
    names, sizes = ["0.jpg"], np.array([[12, 16]], dtype=np.int32)
    shown = {}
    for terminal in (False, True):
        stream = io.StringIO()
        console = Console(file=stream, force_terminal=terminal, width=160)
        decode_all(folder, names, np.arange(1), sizes, Findings(folder), 1, console)
        shown[terminal] = stream.getvalue()
    assert shown[False] == "" and "1/1" in shown[True] and "0 bad" in shown[True]
