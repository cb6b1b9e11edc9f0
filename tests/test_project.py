"""What the project promises about itself: sizes, versions, extras, targets."""

import ast
import pkgutil
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.helpers import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEPENDENCIES = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = {name: [Requirement(text) for text in texts] for name, texts in PROJECT["optional-dependencies"].items()}
TESTED = {
    canonicalize_name(line.partition("==")[0]): Version(line.partition("==")[2])
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
}


@pytest.mark.parametrize("requirement", [*DEPENDENCIES, *EXTRAS["plot"], *EXTRAS["dev"]], ids=str)
def test_tested_version_lies_in_range(requirement: Requirement) -> None:
    assert TESTED[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3", "2.6.5"])
def test_unsafe_lightning_is_excluded(version: str) -> None:
    lightning = next(requirement for requirement in DEPENDENCIES if requirement.name == "lightning")
    assert version not in lightning.specifier


def test_no_copyleft_dependency() -> None:
    names = {requirement.name for group in [DEPENDENCIES, *EXTRAS.values()] for requirement in group} | TESTED.keys()
    assert not names & {"ultralytics", "albumentationsx", "supervision", "av"}


@pytest.mark.parametrize("extra", ["timm", "plot"])
def test_extra_is_imported_in_one_file_each(extra: str) -> None:
    for requirement in EXTRAS[extra]:
        users = [path for path in (ROOT / "detkit").rglob("*.py") if requirement.name in _imported(path)]
        assert len(users) <= 1, f"{requirement.name} is imported in {users}"


def test_export_is_imported_where_files_are_written_and_run() -> None:
    """A checkpoint is used without it."""
    names = {requirement.name for requirement in EXTRAS["export"]}
    users = {
        path.relative_to(ROOT / "detkit").as_posix() for path in ROOT.glob("detkit/**/*.py") if _imported(path) & names
    }
    runtimes = {"inference/runtimes/onnx_runtime.py", "inference/runtimes/open_vino.py"}
    assert {user for user in users if not user.startswith(("exporting/", "benchmark/"))} == runtimes


@pytest.mark.parametrize(
    ("pattern", "most"), [("detkit/**/*.py", 300), ("detkit/training/module.py", 120), ("scripts/*.py", 40)]
)
def test_files_stay_small(pattern: str, most: int) -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in ROOT.glob(pattern)}
    assert {name: count for name, count in lines.items() if count > most} == {}


def test_no_import_is_optional_in_silence() -> None:
    """An ImportError is caught only to raise one that names the extra."""
    silent = [
        f"{path.relative_to(ROOT)}:{handler.lineno}"
        for path in (ROOT / "detkit").rglob("*.py")
        for handler in ast.walk(ast.parse(path.read_text()))
        if isinstance(handler, ast.ExceptHandler)
        and handler.type is not None
        and "ImportError" in ast.unparse(handler.type)
        and not any(isinstance(node, ast.Raise) for node in ast.walk(handler))
    ]
    assert silent == []


def test_make_without_target_lists_all_targets() -> None:
    listed = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert {"help", "demo", "test", "test-all", "test-avx2", "check", "clean"} <= set(targets)
    for target in targets:
        assert re.search(rf"^ *make {target} +\S", listed.stdout, flags=re.MULTILINE), (
            f"make help is silent on {target}"
        )


def test_folders_of_tests_are_those_of_detkit() -> None:
    """Apart from what tests share and what is about the whole."""
    others = {"golden", "helpers", "parity", "reliability"}
    folders = {path.parent.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert {name for name in folders - others if not (ROOT / "detkit" / name).is_dir()} == set()


def test_no_test_module_imports_another() -> None:
    """What several of them need lies in tests/helpers."""
    importing = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("*.py")
        if re.search(r"^ *(from|import) tests\.([a-z_]+\.)*test_", path.read_text(), flags=re.MULTILINE)
    }
    assert importing == set()


WAYS = {
    "From the command line to the loss": 7,
    "From an image file to a batch": 9,
    "From a checkpoint to detections": 8,
    "An export": 9,
}


def test_a_way_through_the_code_is_short_and_leads_from_file_to_file() -> None:
    """Each file of a list in CONTRIBUTING.md is imported by one before it, or its class is named in yolo_csp."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    built = {
        _file_of(target)
        for target in re.findall(r"_target_: (detkit[\w.]+)", (ROOT / "recipes/yolo_csp.yaml").read_text())
    }
    for heading, most in WAYS.items():
        section = page.partition(f"\n{heading}:\n\n")[2].partition("\n\n")[0]
        files = re.findall(r"^\d+\. `(detkit/[\w/]+\.py)`: ", section, flags=re.MULTILINE)
        assert 3 <= len(files) <= most, f"{heading}: {len(files)} files"
        reached = built | {files[0]}
        for file in files:
            assert file in reached, f"{heading}: no file before {file} imports it"
            reached |= _files_imported(ROOT / file)


def _imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def _files_imported(path: Path) -> set[str]:
    """The files of detkit that hold what a file imports, also by way of the ``__init__`` of a package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("detkit"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            members = [f"{name}.{of}" for name in names for of in getattr(pkgutil.resolve_name(name), "__all__", ())]
            found |= {_file_of(name) for name in names + members}
    return found


def _file_of(dotted: str) -> str:
    """Where a member of detkit is defined: detkit.losses.YOLOLoss in detkit/losses/yolo.py."""
    member = pkgutil.resolve_name(dotted)
    defined = getattr(member, "__module__", None) or getattr(member, "__name__", "")
    return f"{defined.replace('.', '/')}.py"
