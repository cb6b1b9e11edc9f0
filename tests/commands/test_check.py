"""scripts/check_data.py as a user calls it: what it says, what it writes, and its exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from detkit.commands import check
from detkit.errors import DataError, RecipeError
from tests.helpers import ROOT
from tests.helpers.small_set import write_split


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_split(tmp_path, "train", 4)
    write_split(tmp_path, "val", 3, size_hw=(64, 96))
    write_split(tmp_path, "test", 2, size_hw=(32, 96))
    return tmp_path


def test_a_good_set_by_level(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check.main([f"data.root={root}"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith(("train", "val", "test"))] == ["train", "val", "test"]
    assert "  notices" in lines and "    images without boxes, used as background: 2 (0.png, 3.png)" in lines
    assert lines[-1] == "no errors in train, val, test"


def test_errors_of_every_split_are_told_before_it_ends(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "train/1.png").write_bytes(b"")
    (root / "annotations/instances_test.json").write_text("{")
    with pytest.raises(SystemExit) as caught:
        check.main([f"data.root={root}", f"html={root}/report.html"])
    text = capsys.readouterr().out
    assert caught.value.code == 65
    assert "image 11: " in text and "1.png: the file is empty" in text
    assert "line 1, column 2: Expecting property name" in text
    assert text.splitlines()[-1] == "cannot be used: train, test"
    assert "1.png: the file is empty" in (root / "report.html").read_text()


def test_json_for_programs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "val/1.png").unlink()
    with pytest.raises(SystemExit) as caught:
        check.main([f"data.root={root}", "split=val,test", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert caught.value.code == 65 and list(told) == ["val", "test"]
    assert told["val"]["usable"] is False and told["test"]["usable"] is True
    [missing] = told["val"]["findings"]
    assert (missing["kind"], missing["level"], missing["number"]) == ("image-missing", "error", 1)
    assert missing["places"] == [{"text": "image 11: 1.png", "file": "1.png", "image_id": 11, "annotation_id": None}]


def test_named_files_are_checked_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = [f"data.train_annotations={root}/annotations/instances_val.json", f"data.train_images={root}/val"]
    check.main(named)
    assert capsys.readouterr().out.splitlines()[-1] == "no errors in train"


def test_a_file_that_only_the_decoder_finds(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray((root / "val/2.png").read_bytes())
    content[content.index(b"IDAT") + 10] ^= 255
    (root / "val/2.png").write_bytes(content)
    check.main([f"data.root={root}"])
    with pytest.raises(SystemExit):
        check.main([f"data.root={root}", "decode=true"])
    text = capsys.readouterr().out
    assert "image files that cannot be decoded: 1; " in text and "image 12: " in text
    assert text.splitlines()[-1] == "cannot be used: val"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.rot=a"], r"data\.rot: no such key; did you mean 'data\.root'"),
        (["decode=yes please"], "decode: must be true or false; got 'yes please'"),
        (["split=train,vall"], "split: must be some of train,val,test; got 'vall'"),
        (["data.val_images=v"], r"data\.val_annotations and data\.val_images must be given together; got None, 'v'"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check.main(arguments)


def test_a_split_that_is_asked_for_must_be_there(root: Path) -> None:
    (root / "annotations/instances_test.json").unlink()
    with pytest.raises(DataError, match=f"there is no test split under {root}"):
        check.main([f"data.root={root}", "split=test"])


@pytest.mark.slow  # starts a process
def test_the_command_ends_with_a_code(root: Path) -> None:
    (root / "val/1.png").unlink()
    command = [sys.executable, "scripts/check_data.py", f"data.root={root}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 65 and "image 11: 1.png" in done.stdout and done.stderr == ""
