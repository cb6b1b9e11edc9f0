"""scripts/train.py as it is called: what it prints, its exit code, and what it does not import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT
from tests.recipe.conftest import TOY


def run(*arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, str(ROOT / "scripts" / "train.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture
def toy(tmp_path: Path) -> str:
    path = tmp_path / "toy.yaml"
    path.write_text(TOY)
    return f"recipe={path}"


def test_no_argument_lists_the_recipes() -> None:
    listed = run()
    assert listed.returncode == 0 and listed.stderr == ""
    names = [path.stem for path in (ROOT / "recipes").glob("*.yaml")]
    assert "yolo_csp_n" in names
    rows = {line.split()[0]: line.split()[1:] for line in listed.stdout.splitlines() if line.strip()}
    assert all(rows[name] for name in names)
    assert run("--help").stdout == listed.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recipe=yolo_cps"], "error: recipe: no recipe 'yolo_cps' in"),
        (["TOY", "trainr.max_epochs=3"], "error: trainr.max_epochs: no key 'trainr' at the top"),
        (["TOY", "seed"], "error: seed: must have the form key.path=value"),
        (["seed=3"], "error: recipe: is missing; give one"),
    ],
)
def test_what_needs_no_import_answers_at_once(toy: str, arguments: list[str], message: str) -> None:
    arguments = [toy if argument == "TOY" else argument for argument in arguments]
    before = os.times()
    answer = run(*arguments, options=("-X", "importtime"))
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    timed = [line for line in answer.stderr.splitlines() if line.startswith("import time")]
    imported = {line.rpartition("|")[2].strip() for line in timed}
    assert "omegaconf" in imported and not imported & {"torch", "lightning", "numpy", "cv2"}
    said = [line for line in answer.stderr.splitlines() if not line.startswith("import time")]
    assert len(said) == 1 and said[0].startswith(message) and answer.stdout == ""
    assert answer.returncode == 78
    assert seconds < 0.5  # of CPU time, which a busy machine does not stretch


def test_a_misspelt_argument_is_one_line(toy: str) -> None:
    answer = run(toy, "trainer.max_epohcs=3")
    assert answer.returncode == 78 and answer.stdout == ""
    assert answer.stderr == (
        "error: trainer.max_epohcs: Trainer has no argument 'max_epohcs'; did you mean 'max_epochs'? (command line)\n"
    )


def test_help_of_a_recipe(toy: str) -> None:
    answer = run("--help", toy, "model.backbone=tests.recipe.toys.OtherBackbone")
    assert answer.returncode == 0, answer.stderr
    assert "model.backbone.layers" in answer.stdout and "(18)" in answer.stdout
