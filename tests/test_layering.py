"""Imports point one way: every import of every module under detkit/ against the table of arrows.

Lazy imports inside functions and those under TYPE_CHECKING count like any other.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers import ROOT

MAY_IMPORT = {
    "errors": set(),
    "files": set(),
    "lazy": set(),
    "types": set(),
    "yaml_text": set(),
    "progress": set(),
    "ops": {"errors", "types"},
    "layers": {"ops"},
    "models": {"errors", "types", "ops", "layers"},
    "assign": {"types", "ops"},
    "losses": {"types", "ops", "assign"},
    "decode": {"types", "ops"},
    "data": {"errors", "files", "yaml_text", "lazy", "types", "ops", "reports", "progress"},
    "metrics": {"types", "ops"},
    "training": {"errors", "types", "ops", "checkpoint"},
    "weights": {"errors", "files", "types", "models", "checkpoint"},
    "checkpoint": {"errors", "files"},
    "inference": {"errors", "lazy", "types", "ops", "data", "checkpoint", "recipe", "progress"},
    "reports": {"errors", "types"},
    "inspection": {"errors", "types", "ops", "data", "reports"},
    "exporting": {
        "errors",
        "types",
        "ops",
        "layers",
        "decode",
        "data",
        "training",
        "checkpoint",
        "inference",
        "recipe",
        "reports",
        "progress",
    },
    "benchmark": {
        "errors",
        "types",
        "ops",
        "data",
        "training",
        "checkpoint",
        "inference",
        "exporting",
        "recipe",
        "progress",
    },
    "recipe": {"errors", "yaml_text"},
    "api": {"errors", "training", "inference", "exporting", "recipe", "weights"},
    "": {"lazy", "inference", "api"},  # detkit/__init__.py offers detkit.load, train, evaluate, export
    "__main__": {"commands"},
}
MAY_IMPORT["commands"] = {*MAY_IMPORT} - {"", "__main__"}  # everything; nothing below imports it

# Inside a package: its parts in the order in which they may import, each those before it.
INSIDE = {
    "data": ["findings", "images", "formats", "index", "augment", "demo", "loading", "checking", "modules"],
    "training": [
        *["settings", "parts", "distributed", "run", "optim", "image_size", "module", "callbacks"],
        *["summary", "evaluate", "run_callbacks", "train"],
    ],
    "inference": [
        *[
            "decoder",
            "device",
            "module_limit",
            "metadata",
            "old_formats",
            "runtimes",
            "exported_detector",
            "stored_detector",
        ],
        *["tiling", "input", "results", "output", "predictor", "predict"],
    ],
    "exporting": [
        *["converter_logs", "options", "steps", "formats", "verify", "int8"],
        *["reduced_precision", "exported_file", "run"],
    ],
    "benchmark": ["options", "machine", "engines", "selection", "measure", "output", "run"],
    "weights": [
        *["align", "class_rows", "load_report", "source_weights"],
        *["files", "fit", "library", "projects", "load"],
    ],
}
NOT_BEFORE = {("checking", "loading"), ("loading", "demo"), ("optim", "run")}  # neighbours of one rank

# One thing of a kind a file; everywhere else a folder is understood by the list of its files.
MANY_OF_A_KIND = {"ops", "losses", "models/backbones", "recipe", "commands", "training/callbacks"}

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


def arrows_inside(root: Path, package: str) -> Iterator[tuple[str, str, str]]:
    """Imports between the parts of a package: place, from, to."""
    for path in sorted((root / "detkit" / package).rglob("*.py")):
        part = path.relative_to(root / "detkit" / package).parts[0].removesuffix(".py")
        for line, name in imports_of(path.read_text()):
            other = name.removeprefix(f"detkit.{package}.").partition(".")[0]
            if name.startswith(f"detkit.{package}") and part not in {"__init__", other}:
                yield f"{path.relative_to(root)}:{line}", part, other


def module_graph(root: Path) -> dict[str, set[str]]:
    """Every module, and the modules that it imports; a member counts as its module."""
    paths = {path: ".".join(path.relative_to(root).with_suffix("").parts) for path in (root / "detkit").rglob("*.py")}
    modules = {path: name.removesuffix(".__init__") for path, name in paths.items()}
    known, graph = set(modules.values()), {}
    for path, module in modules.items():
        graph[module] = set()
        for _, name in imports_of(path.read_text()):
            if name not in NO_ARROW:
                while name and name not in known:
                    name = name.rpartition(".")[0]  # noqa: PLW2901
                graph[module] |= {name} - {""}
    return graph


def part_of(module: str) -> str:
    """The part of detkit that a dotted name lies in: detkit.losses.focal to losses, detkit itself to nothing."""
    return module.split(".")[1] if "." in module else ""


def test_imports_point_one_way() -> None:
    assert wrong_arrows(ROOT) == []


def test_contributing_has_the_same_table() -> None:
    rows = re.findall(
        r"^\| `(\w+)(?:/|\.py)` \|[^|]*\|([^|]*)\|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE
    )
    table = {part: set(filter(None, cells.strip().split(", "))) for part, cells in rows}
    assert table.pop("commands") == {"everything"}
    assert table == {part: needs for part, needs in MAY_IMPORT.items() if part not in {"", "__main__", "commands"}}


def test_every_part_is_read() -> None:
    parts = {path.stem for path in (ROOT / "detkit").iterdir() if path.suffix == ".py" or any(path.glob("**/*.py"))}
    assert {"errors", "types", "ops", "models"} <= parts
    assert parts - {"__init__", "__pycache__", "py"} <= set(MAY_IMPORT)


def test_table_has_no_circle() -> None:
    left = dict(MAY_IMPORT)
    while ready := [part for part, needs in left.items() if not needs & left.keys()]:
        for part in ready:
            del left[part]
    assert left == {}


@pytest.mark.parametrize("package", INSIDE)
def test_parts_of_a_package_stand_in_their_order(package: str) -> None:
    order = INSIDE[package]
    wrong = [
        f"{place}: {part} imports {other}"
        for place, part, other in arrows_inside(ROOT, package)
        if other not in order[: order.index(part)] or (part, other) in NOT_BEFORE
    ]
    assert wrong == []


@pytest.mark.parametrize("package", INSIDE)
def test_every_part_of_a_package_has_its_place(package: str) -> None:
    inside = (ROOT / "detkit" / package).iterdir()
    parts = {path.stem for path in inside if path.suffix == ".py" or any(path.glob("**/*.py"))}
    assert parts - {"__init__", "__pycache__"} == set(INSIDE[package])


def test_planted_arrow_inside_is_found(tmp_path: Path) -> None:
    planted = tmp_path / "detkit" / "data" / "images" / "a.py"
    planted.parent.mkdir(parents=True)
    planted.write_text("from detkit.data.formats.voc import b\nfrom detkit.data import c")
    found = list(arrows_inside(tmp_path, "data"))
    assert found == [
        ("detkit/data/images/a.py:1", "images", "formats"),
        ("detkit/data/images/a.py:2", "images", "c"),
    ]


def test_no_module_imports_itself_by_way_of_others() -> None:
    left = module_graph(ROOT)
    while ready := [module for module, needs in left.items() if not needs & left.keys() - {module}]:
        for module in ready:
            del left[module]
    assert left == {}


def test_a_folder_is_understood_by_the_list_of_its_files() -> None:
    folders = [path for path in (ROOT / "detkit").rglob("*") if path.is_dir() and any(path.glob("*.py"))]
    assert folders
    for folder in folders:
        name = folder.relative_to(ROOT / "detkit").as_posix()
        files = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= (15 if name in MANY_OF_A_KIND else 9), f"detkit/{name} has {len(files)} files"
        init = folder / "__init__.py"
        assert init.is_file(), f"detkit/{name} has no __init__.py"
        subject = ast.get_docstring(ast.parse(init.read_text()))
        assert subject, f"detkit/{name}/__init__.py does not say its subject"


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


@pytest.mark.parametrize("statement", ["import detkit", "from detkit import recipe", "import detkit.commands"])
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


@pytest.mark.parametrize(
    "module",
    [
        *["detkit.data.images.decode", "detkit.data.images.resize", "detkit.data.images.image_files"],
        *["detkit.inference.input.image_forms", "detkit.inference.input.sources", "detkit.inference.results"],
        *["detkit.inference.metadata", "detkit.inference.runtimes.signature"],
        *["detkit.inference.runtimes.onnx_runtime", "detkit.inference.runtimes.open_vino"],
    ],
)
def test_torch_is_imported_only_where_it_computes(module: str) -> None:
    """A program that runs an exported detector on images starts without it."""
    code = f"import sys, {module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
