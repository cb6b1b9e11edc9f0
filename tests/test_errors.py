"""How a script ends: with one line and a code, or with a code alone."""

import signal
import subprocess
import sys

import pytest

from detkit import errors

CODES = {"DetkitError": 1, "RecipeError": 78, "DataError": 65, "CheckpointError": 66, "TrainingError": 70}
CODES["StorageError"] = 74


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
