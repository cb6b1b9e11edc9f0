"""The command itself: its list and help, what it answers to a typing error, and how fast; the user's own classes."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from detkit import commands
from detkit.benchmark.options import BenchmarkOptions
from detkit.commands.check import CheckOptions
from detkit.commands.convert import ConvertOptions
from detkit.commands.evaluate import EvaluateOptions
from detkit.commands.help import list_options
from detkit.commands.inspect import InspectOptions
from detkit.commands.train import TrainOptions
from detkit.exporting.options import ExportOptions
from detkit.inference.predict.options import PredictOptions
from detkit.recipe.options import options_of
from tests.helpers import ROOT
from tests.helpers.warm_scripts import DEFAULTS, run_script

OPTIONS = {
    "train": TrainOptions,
    "evaluate": EvaluateOptions,
    "predict": PredictOptions,
    "export": ExportOptions,
    "benchmark": BenchmarkOptions,
    "check": CheckOptions,
    "convert": ConvertOptions,
    "inspect": InspectOptions,
}
SCRIPTS = {"check": "check_data", "convert": "convert_data", "inspect": "inspect_model"}


def detkit(*words: str) -> subprocess.CompletedProcess[str]:
    """``python -m detkit`` in a process of its own, with the modules that it imported at the end of its errors."""
    code = (
        "import runpy, sys, json, atexit; sys.argv = ['detkit', *sys.argv[1:]];"
        "atexit.register(lambda: sys.stderr.write(json.dumps(sorted(sys.modules))));"
        "runpy.run_module('detkit', run_name='__main__', alter_sys=True)"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, env=DEFAULTS, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_commands_are_listed_with_one_line_each(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["detkit", *words])
    commands.main()
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line]
    assert [row[0] for row in rows[-len(OPTIONS) :]] == list(OPTIONS) == list(commands.COMMANDS)
    assert all(len(row[1]) > 20 for row in rows[-len(OPTIONS) :])


@pytest.mark.parametrize("name", OPTIONS)
def test_help_names_every_option_with_its_meaning(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["detkit", name, "--help"])
    commands.main()
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"detkit {name} ") for line in lines)
    rows = {line.split("  ")[0]: line for line in reversed(lines)}  # the list of recipes comes after them
    table = list_options(OPTIONS[name])
    meanings = dict(zip(*([str(cell) for cell in table.columns[number].cells] for number in (0, 2)), strict=True))
    for option in options_of(OPTIONS[name]):
        assert option.key in rows
        assert meanings[option.key] and meanings[option.key] in rows[option.key]  # in one line, not cut
        assert len(meanings[option.key].split()) > 1


def test_help_says_default_range_and_choices() -> None:
    console = Console(width=300)
    with console.capture() as capture:
        console.print(list_options(PredictOptions))
    rows = {line.split()[0]: line.split()[1:] for line in capture.get().splitlines()}
    assert rows["checkpoint"][:3] == ["must", "be", "given"]
    assert rows["save"][0] == "pictures,coco" and rows["save"][-1] == "pictures,coco,csv,yolo)"
    assert " ".join(rows["overlap"]).endswith("(a number from 0 to 0.9)") and rows["overlap"][0] == "0.2"
    assert rows["slices"][0] == "null" and rows["flip"][0] == "false"


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_must_be_given_have_an_example(name: str) -> None:
    assert all(option.example for option in options_of(OPTIONS[name]) if option.is_needed)
    assert dataclasses.is_dataclass(OPTIONS[name])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("trian", "no command 'trian'; did you mean 'train'?"),
        ("train recipe=yolo_cps", "did you mean 'yolo_csp'?"),
        ("train recipe=recipes/yolo_cps.yaml", "; did you mean 'recipes/yolo_csp.yaml'?"),
        ("train recipe=yolo_csp trainr.max_epochs=3", "did you mean 'trainer'?"),
        (
            "train recipe=yolo_csp trainer.max_epohcs=3",
            "Trainer has no argument 'max_epohcs'; did you mean 'max_epochs'?",
        ),
        ("train recipe=yolo_csp data.rot=a", "CocoDataModule has no argument 'rot'; did you mean 'root'?"),
        ("evaluate chekpoint=a checkpoint=b split=vall", "split: must be train, val or test; got 'vall'"),
        ("predict checkpoint=a source=b flop=true", "flop: no such key; did you mean 'flip'?"),
        ("export checkpoint=a fromat=onnx", "fromat: no such key; did you mean 'format'?"),
        ("benchmark checkpoint=a runtime=onnx", "runtime: no such key; did you mean 'runtimes'?"),
        ("check data.rot=a", "data.rot: no such key; did you mean 'data.root'?"),
        ("convert source=a target=b image=copy", "image: no such key; did you mean 'images'?"),
        ("inspect recipe=yolo_cps", "did you mean 'yolo_csp'?"),
    ],
)
def test_typing_errors_are_one_line_before_anything_heavy_is_imported(words: str, said: str) -> None:
    done = detkit(*words.split())
    *lines, modules = done.stderr.splitlines()
    assert done.returncode == 78 and done.stdout == ""
    assert len(lines) == 1 and lines[0].startswith("error: ") and said in lines[0]
    assert not {"torch", "lightning", "numpy", "cv2", "wandb"} & set(json.loads(modules))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("evaluate checkpoint=scirpts", 66),
        ("predict checkpoint=scirpts source=a", 66),
        ("predict checkpoint=scripts source=scirpts", 65),
        ("predict checkpoint=scripts source=scripts annotations=scirpts", 65),
        ("export checkpoint=scirpts", 66),
        ("benchmark checkpoint=scirpts", 66),
        ("benchmark checkpoint=scripts also=scirpts", 66),
        ("check data.root=scirpts", 65),
        ("convert source=scirpts target=a", 65),
        ("inspect checkpoint=scirpts", 66),
        ("inspect recipe=yolo_csp features image=scirpts", 65),
    ],
)
def test_misspelt_paths_are_one_line_before_anything_heavy_is_imported(words: str, code: int) -> None:
    done = detkit(*words.split())
    [line, modules] = done.stderr.splitlines()
    assert done.returncode == code and done.stdout == ""
    assert re.fullmatch(r"error: \S+=scirpts: there is no such file or folder; did you mean 'scripts'\?", line)
    assert not {"torch", "lightning", "numpy", "cv2", "wandb"} & set(json.loads(modules))


@pytest.mark.parametrize("words", ["", "--help", "train", "train --help", "predict --help", "check", "inspect -h"])
def test_help_imports_nothing_heavy(words: str) -> None:
    done = detkit(*words.split())
    assert done.returncode == 0 and done.stdout
    assert not {"torch", "lightning", "numpy", "cv2", "wandb"} & set(json.loads(done.stderr))


@pytest.mark.parametrize("name", OPTIONS)
def test_the_script_is_the_command(name: str) -> None:
    script, module = (
        run_script([*words, "--help"]) for words in ([f"scripts/{SCRIPTS.get(name, name)}.py"], ["-m", "detkit", name])
    )
    assert script.returncode == module.returncode == 0
    assert script.stdout == module.stdout != ""


def test_a_class_in_the_working_directory_is_found_by_every_command(tmp_path: Path) -> None:
    (tmp_path / "my_backbone.py").write_text(
        "from detkit.models.backbones import CSPDarknet\n\n\nclass Mine(CSPDarknet):\n    pass\n"
    )
    words = ["recipe=yolo_csp_n", "model.backbone=my_backbone.Mine", "model.backbone.width_multiple=0.125"]
    inspected = run_script(["-m", "detkit", "inspect", *words, "depth=0"], tmp_path)
    assert inspected.returncode == 0, inspected.stderr
    assert "Mine" in inspected.stdout
