"""How a script ends: with one line and a code, or with a code alone."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from detkit import errors

CODES = {"DetkitError": 1, "RecipeError": 78, "DataError": 65, "CheckpointError": 66, "TrainingError": 70}
CODES["StorageError"] = 74


def test_known_words_that_are_most_like_an_unknown_one() -> None:
    known = ["depth", "width", "dept_2"]
    assert errors.did_you_mean("dept", known) == "; did you mean 'depth'?"
    assert errors.did_you_mean("dept", known, 3) == "; did you mean 'depth' or 'dept_2'?"
    assert errors.did_you_mean("dept", known, 3, likeness=0) == "; did you mean 'depth', 'dept_2' or 'width'?"
    assert errors.did_you_mean("x", known) == "; known: dept_2, depth, width"
    assert errors.did_you_mean("x", known, list_all=False) == errors.did_you_mean("x", []) == ""


def test_the_path_that_is_most_like_a_misspelt_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "photos.txt").touch()
    monkeypatch.chdir(tmp_path)
    assert errors.nearest_path("rusn/first") == errors.nearest_path("rusn/frist") == "; did you mean 'runs/first'?"
    assert errors.nearest_path(tmp_path / "runs" / "frst") == f"; did you mean '{tmp_path}/runs/first'?"
    assert errors.nearest_path("rusn/x") == "; did you mean 'runs'?"
    for path in ("runs/first", "gone", "runs/x", "photos.txt/x", ""):
        assert errors.nearest_path(path) == ""


def test_sizes_that_do_not_fit_a_stride() -> None:
    assert errors.stride_fault((64, 96), 32) is None
    near = "must be multiples of 32, the model's largest stride; got [100, 0], the nearest size is [96, 32]"
    assert errors.stride_fault((100, 0), 32) == near


@pytest.mark.parametrize("name", CODES)
def test_an_error_is_one_line_and_its_code(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def main(arguments: list[str]) -> None:
        raise getattr(errors, name)(f"got {arguments}")

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["script.py", "a=1"])
    with pytest.raises(SystemExit) as end:
        errors.run_script(main)
    assert end.value.code == CODES[name] and capsys.readouterr().err == "error: got ['a=1']\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_before_training_is_a_code_alone(number: int, code: int) -> None:
    program = f"""
import signal
from detkit.errors import run_script
run_script(lambda _: signal.raise_signal({int(number)}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
