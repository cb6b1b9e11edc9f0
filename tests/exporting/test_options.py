"""What may be asked of an export, and what has to be installed for it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from detkit.errors import ExportError, RecipeError
from detkit.exporting.options import LIBRARIES, ExportOptions, check_options
from detkit.recipe.options import read_options
from tests.helpers.warm_scripts import ROOT


@pytest.fixture(autouse=True)
def _existing_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").touch()
    monkeypatch.chdir(tmp_path)


def read(argv: list[str]) -> tuple[ExportOptions, list[tuple[str, Any]]]:
    options, pairs = read_options(ExportOptions, argv, prefixes=["data."])
    check_options(options, pairs)
    return options, pairs


def test_options_that_do_not_fit() -> None:
    for argv, said in (
        (
            ["checkpoint=a", "precision=int8", "format=torchscript"],
            "int8 is for format=onnx and openvino; got format=tor",
        ),
        (["checkpoint=a", "out=model.pt"], r"format=onnx makes a \.onnx file; got 'model\.pt'"),
        (["checkpoint=a", "data.image_hw=[64,64]"], r"data\.image_hw: the size is that of the export; set image_hw"),
        (
            ["checkpoint=a", "data.resize=squash"],
            r"data\.resize: images come to the network as the checkp",
        ),
        (["format=onx"], "format: must be onnx, openvino, torch_export or torchscript; got 'onx'"),
        (["format=onnx"], "checkpoint: is missing, e.g. checkpoint=runs/NAME/TIME"),
    ):
        with pytest.raises(RecipeError, match=said):
            read(argv)
    given, pairs = read(["checkpoint=a", "image_hw=320", "precision=int8", "data.root=b", "out=null"])
    assert (given.image_hw, given.ap_tolerance, given.out, pairs) == ((320, 320), 1.0, None, [("data.root", "b")])


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from detkit.exporting import options as module

    monkeypatch.setitem(module.LIBRARIES, "openvino", ("onnx", "no_such_openvino"))
    remedy = r'in the clone, pip install -e "\.\[export\]"'
    with pytest.raises(ExportError, match=f"format=openvino needs no_such_openvino: {remedy}"):
        read(["checkpoint=a", "format=openvino"])


def test_every_format_says_what_it_needs() -> None:
    """What the export imports before it knows the format, in a process of its own."""
    optional = sorted(set(LIBRARIES["openvino"]))
    program = f"import sys; import detkit.exporting.run; print(*[name for name in {optional} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "onnx" in imported
    for needed in LIBRARIES.values():
        assert imported <= set(needed)
