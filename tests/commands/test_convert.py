"""scripts/convert_data.py: what it prints, its exit codes, and that its target is a root for training."""

import subprocess
import sys
from pathlib import Path

import pytest

from detkit.commands.convert import main
from detkit.data.formats.layout import find_layout
from detkit.errors import RecipeError
from tests.helpers import ROOT
from tests.helpers.label_sets import write_yolo


def test_converts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_yolo(tmp_path / "yolo", {"a.png": "0 0.1 0.1 0.3 0.1 0.3 0.5\n"})
    write_yolo(tmp_path / "yolo", {"b.png": "1 0.5 0.5 0.1 0.1\n"}, "val")
    main([f"source={tmp_path}/yolo", f"target={tmp_path}/a=b", "images=copy"])
    told = capsys.readouterr().out
    assert "train: " in told and "1 images, 1 boxes, 2 classes" in told
    assert "polygons, of which the bounding box is taken: 1 (labels/train/a.txt:1)" in told
    assert told.endswith(f"written to {tmp_path}/a=b: train, val\n")
    assert [*find_layout(tmp_path / "a=b")] == ["train", "val"]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["target=b"], r"source: is missing, e\.g\. source=/data/yolo"),
        (["source=a"], r"target: is missing"),
        (["source=a", "target=b", "images=symlink"], r"images: must be link, copy or none; got 'symlink'"),
        (["source=a", "target=b", "follow_links=yes"], r"follow_links: must be true or false; got 'yes'"),
        (["source=a", "target=b", "image=copy"], r"image: no such key; did you mean 'images'"),
    ],
)
def test_arguments_that_do_not_fit(arguments: list[str], match: str) -> None:
    with pytest.raises(RecipeError, match=match):
        main(arguments)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["source=a"], 78, "error: target: is missing, e.g. target=/data/coco\n"),
        (["source=nowhere", "target=b"], 65, "error: source=nowhere: there is no such file or folder\n"),
    ],
)
def test_faults_are_one_line(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/convert_data.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", message)
