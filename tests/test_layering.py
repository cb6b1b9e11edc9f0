"""Imports point one way: every import of every module under detkit/ against the table of arrows.

Lazy imports inside functions and those under TYPE_CHECKING count like any other.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers import ROOT

MAY_IMPORT = {
    "errors": set(),
    "types": set(),
    "ops": {"errors", "types"},
    "layers": {"ops"},
    "models": {"types", "ops", "layers"},
    "assign": {"types", "ops"},
    "losses": {"types", "ops", "assign"},
    "decode": {"types", "ops"},
    "data": {"errors", "types", "ops"},
    "metrics": {"types", "ops"},
    "training": {"errors", "types", "ops", "checkpoint"},
    "weights": {"errors", "types", "models", "checkpoint"},
    "checkpoint": {"errors"},
    "inference": {"errors", "types", "ops", "data", "checkpoint", "recipe"},
    "inspection": {"errors", "types", "ops", "data"},
    "export": {"errors", "types", "ops", "layers", "decode", "data", "training", "checkpoint", "inference", "recipe"},
    "benchmark": {"errors", "types", "data", "training", "checkpoint", "inference", "export", "recipe"},
    "recipe": {"errors"},
    "": {"inference"},  # detkit/__init__.py offers detkit.load
}


NO_ARROW = {"detkit.__version__"}  # a constant


class Import(NamedTuple):
    """An import as it stands: where, and what by its full dotted name."""

    line: int
    name: str


def imports_of(source: str) -> Iterator[Import]:
    """Every module or member that the source imports, wherever the statement stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import, which detkit does not use"
            yield from (Import(node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def wrong_arrows(root: Path) -> list[str]:
    """Imports under root/detkit that the table does not allow, as ``file:line: what``."""
    faults = []
    for path in sorted((root / "detkit").rglob("*.py")):
        place = path.relative_to(root)
        package = part_of(".".join(place.with_suffix("").parts).removesuffix(".__init__"))
        if package not in MAY_IMPORT:
            faults.append(f"{place}: the table of arrows has no row for {package!r}")
            continue
        for line, name in imports_of(path.read_text()):
            top = name.partition(".")[0]
            if top in {"scripts", "tests", "results", "recipes"}:
                faults.append(f"{place}:{line}: imports {top}")
            elif top == "detkit" and name not in NO_ARROW and part_of(name) not in MAY_IMPORT[package] | {package}:
                faults.append(f"{place}:{line}: {package or 'detkit'} imports {part_of(name) or 'detkit'}")
    return faults


def part_of(module: str) -> str:
    """The part of detkit that a dotted name lies in: detkit.losses.focal to losses, detkit itself to nothing."""
    return module.split(".")[1] if "." in module else ""


def test_imports_point_one_way() -> None:
    assert wrong_arrows(ROOT) == []


def test_every_part_is_read() -> None:
    parts = {path.stem for path in (ROOT / "detkit").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert {"errors", "types", "ops", "models"} <= parts
    assert parts - {"__init__", "__pycache__", "py"} <= set(MAY_IMPORT)


def test_table_has_no_circle() -> None:
    left = dict(MAY_IMPORT)
    while ready := [part for part, needs in left.items() if not needs & left.keys()]:
        for part in ready:
            del left[part]
    assert left == {}


@pytest.mark.parametrize(
    ("part", "source", "fault"),
    [
        ("models/a.py", "from detkit.losses import YOLOLoss", "models/a.py:1: models imports losses"),
        ("models/a.py", "from detkit import losses", "models/a.py:1: models imports losses"),
        ("models/a.py", "import detkit.losses.focal", "models/a.py:1: models imports losses"),
        ("models/a.py", "import detkit", "models/a.py:1: models imports detkit"),
        (
            "models/heads/a.py",
            "def f():\n    from detkit.decode import a",
            "models/heads/a.py:2: models imports decode",
        ),
        ("ops/a.py", "if TYPE_CHECKING:\n    import detkit.models", "ops/a.py:2: ops imports models"),
        ("data/a.py", "try:\n    import scripts.train\nfinally:\n    print()", "data/a.py:2: imports scripts"),
        ("extra/a.py", "import os", "extra/a.py: the table of arrows has no row for 'extra'"),
        ("models/a.py", "from detkit import __version__", None),
        ("models/a.py", "from detkit.models import b\nfrom detkit.layers.conv import c\nimport torch", None),
    ],
)
def test_planted_arrow_is_found(tmp_path: Path, part: str, source: str, fault: str | None) -> None:
    planted = tmp_path / "detkit" / part
    planted.parent.mkdir(parents=True)
    planted.write_text(source)
    assert wrong_arrows(tmp_path) == ([] if fault is None else [f"detkit/{fault}"])


@pytest.mark.parametrize("statement", ["import detkit", "from detkit import recipe"])
def test_stays_light(statement: str) -> None:
    """A misspelt recipe is answered before torch is imported, so the way there must not import it."""
    heavy = "{'torch', 'lightning', 'numpy', 'cv2', 'wandb'} & set(sys.modules)"
    code = f"import sys; {statement}; print(sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_prediction_starts_without_training() -> None:
    """Lightning is most of the start-up time and memory of a program that only predicts."""
    code = "import sys; from detkit.inference import load; print(sorted({'lightning', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
