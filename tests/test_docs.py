"""Every command and every Python block of README.md and docs/ runs; a command that no rule here knows is a failure.

They run in a folder that looks like a reader's: scripts/ and docker/ of the checkout, my_data, the files that the pages
name (weights are random), and a finished run of a detector and of a classifier. Commands that train are cut short by
overrides; hosts and GPUs are replaced by this machine. `make test` runs one command of each kind, `make test-all` all.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision
import yaml
from PIL import Image

from tests.helpers import ROOT
from tests.helpers.label_sets import write_yolo
from tests.helpers.rtdetr_files import port_of
from tests.helpers.warm_scripts import run_script
from tests.helpers.yolox_files import official_weights

RESNET50_FILE = torchvision.models.ResNet50_Weights.IMAGENET1K_V2.url.rpartition("/")[2]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))}
SHORT = [
    *("data.image_hw=[64,64]", "data.batch_size=4", "data.num_workers=0", "wandb=disabled", "trainer.accelerator=cpu"),
    *("trainer.limit_train_batches=2", "trainer.limit_val_batches=2"),
]
SHORT_PAIRS = [tuple(yaml.safe_load(part) for part in pair.split("=")) for pair in [*SHORT, "trainer.max_epochs=1"]]
ADDED = {  # to the commands of detkit that do not train
    "predict": ["device=cpu"],
    "inspect": [],
    "check": [],
    "convert": [],
    "evaluate": ["data.num_workers=0"],
    "export": [  # of a detector after two steps of training
        *("data.root=my_data", "data.num_workers=0", "limit=4", "calibration=4", "allow_difference=true"),
    ],
    "benchmark": [
        *("repeat=1", "warmup=1", "least_s=0", "limit=2", "runtimes=eager", "batch_size=1", "data.num_workers=0"),
    ],
}
DETKIT = [sys.executable, "-m", "detkit"]


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, page after page, in order."""
    pattern = rf"^```{language}\n(.*?)^```"
    return [block for page in PAGES.values() for block in re.findall(pattern, page, flags=re.MULTILINE | re.DOTALL)]


COMMANDS = list(dict.fromkeys(line for block in blocks("bash") for line in block.splitlines()))
PYTHON = blocks("python")


def as_run_here(command: str, runs: Path) -> list[str]:
    """The words to run for a command of a page; runs/RECIPE/TIME is the one run of the recipe in ``runs``."""
    words = shlex.split(re.sub(r"runs/(\w+)/TIME", lambda found: str(next(runs.glob(f"{found[1]}/*"), runs)), command))
    short = [*SHORT, "trainer.max_epochs=1"]
    match words:
        case ["make", *targets]:
            return ["make", "--dry-run", *targets, "-C", str(ROOT)]
        case ["pip", "install", what, *_]:
            return ["test", "-f", str(ROOT / what.partition("[")[0] / "pyproject.toml")]
        case ["detkit", "train", *given] | ["srun", "detkit", "train", *given]:
            as_it_stands = not given or given[-1] == "--help" or given[0].startswith("resume=")
            one = ["trainer.num_nodes=1", "trainer.devices=1"] if words[0] == "srun" else []
            return [*DETKIT, "train", *given, *([] if as_it_stands else short), *one]
        case ["detkit", name, *given] if name in ADDED:
            return [*DETKIT, name, *given, *ADDED[name]]
        case ["torchrun", *_] if "detkit" in words:
            launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
            given = words[words.index("-m") :]
            return [*launch, *given, *short, "trainer.num_nodes=1", "trainer.devices=2"]
        case ["docker", "build", "--file", dockerfile, *_]:
            return ["test", "-f", str(ROOT / dockerfile)]
        case ["docker", "run", *_] if "detkit" in words:
            inside = [word.replace("=/data", "=my_data") for word in words[words.index("detkit") + 1 :]]
            return [str(ROOT / "docker/entrypoint"), *inside, *short]
    raise AssertionError(f"no rule runs this command of README.md or docs/: {command}")


def one_of_each_kind_first(commands: list[str]) -> list[Any]:
    """Marks all but the first command of each kind as long, and all that start more than one process."""
    seen = {"torchrun --nproc-per-node=2", "torchrun --nnodes=2", "srun detkit", "docker run"}
    marked = []
    for command in commands:
        kind = " ".join(command.split()[:2])
        marked.append(pytest.param(command, marks=pytest.mark.long) if kind in seen else command)
        seen.add(kind)
    return marked


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader of the pages stands, after a first run."""
    from detkit.data import make_demo

    place = tmp_path_factory.mktemp("reader")
    (place / "scripts").symlink_to(ROOT / "scripts")
    (place / "my_data").symlink_to(make_demo(place / "demo"))
    for block in PYTHON:
        name = re.match(r"# (\w+\.py)\n", block)
        assert name, f"a Python block must begin with its file's name: {block[:60]!r}"
        assert not (place / name[1]).exists(), f"{name[1]}: two Python blocks have this name"
        short = block.replace('"trainer.max_epochs": 40', f"**{dict(SHORT_PAIRS)}")
        (place / name[1]).write_text(short.replace('out="model.onnx"', 'out="model.onnx", allow_difference=True'))
    torch.save({"model": official_weights("s")}, place / "yolox_s.pth")
    torch.save(port_of("rtdetr_r18").state_dict(), place / "rtdetr_r18vd.pth")
    torch.save(torchvision.models.resnet18().state_dict(), place / "resnet18.pth")
    (place / "photos").mkdir()
    for name in ("photo.jpg", "photos/a.jpg"):
        Image.new("RGB", (160, 120), "grey").save(place / name)
    clip = cv2.VideoWriter(str(place / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (160, 120))
    for level in (50, 100, 150):
        clip.write(np.full((120, 160, 3), level, np.uint8))
    clip.release()
    for split in ("train", "val"):
        write_yolo(place / "my_yolo", {f"{split}.jpg": "0 0.5 0.5 0.2 0.2\n"}, split)
    published = place.with_name("torch_home") / "hub/checkpoints" / RESNET50_FILE
    published.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet50().state_dict(), published)
    (place / "torch_home").symlink_to(place.with_name("torch_home"))
    for name in ("yolo_csp_n", "classify_csp"):
        run_here([*DETKIT, "train", f"recipe={name}", *SHORT, "trainer.max_epochs=1"], place)
    [trained] = place.glob("runs/yolo_csp_n/*/detector.safetensors")
    shutil.copy(trained, place)
    run_here([*DETKIT, "export", "checkpoint=detector.safetensors", *ADDED["export"]], place)
    return place


@pytest.fixture
def here(folder: Path, tmp_path: Path) -> Path:
    """A copy of that folder, so that no command sees what another did."""
    return shutil.copytree(folder, tmp_path / "here", symlinks=True)


def run_here(words: list[str], place: Path) -> str:
    """Run in the reader's folder, with the interpreter of the tests; what it printed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "TORCH_HOME": str(place / "torch_home")}
    if words[0] == sys.executable and (words[1].endswith(".py") or words[:3] == DETKIT):
        done = run_script(words[1:], place, environment)
    else:
        done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_there_is_something_to_run() -> None:
    assert COMMANDS[:2] == ["make demo", "detkit train recipe=yolo_csp_n"]
    assert PYTHON


@pytest.mark.parametrize("command", COMMANDS)
def test_command_has_a_rule(command: str) -> None:
    assert as_run_here(command, Path("runs"))


def test_unknown_command_has_none() -> None:
    with pytest.raises(AssertionError, match=r"no rule runs this command of README.md or docs/: rm -rf runs"):
        as_run_here("rm -rf runs", Path("runs"))


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make")])
def test_make_target_exists(command: str) -> None:
    assert run_here(as_run_here(command, ROOT), ROOT)


def test_table_of_recipes_is_whole() -> None:
    listed = re.findall(r"^\| `((?:yolo|rtdetr|classify)\w+)` \|", PAGES["docs/results.md"], flags=re.MULTILINE)
    assert listed
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "RELIABILITY.md", "results/README.md", "docker/README.md"])
def test_links_lead_to_files(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_readme_is_a_page_and_leads_to_every_other() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 200
    assert [page for page in PAGES if page != "README.md" and f"]({page})" not in PAGES["README.md"]] == []


def test_versions_of_python_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    assert "Python 3.11 to 3.13" in PAGES["README.md"]


@pytest.mark.slow
@pytest.mark.parametrize("command", one_of_each_kind_first([c for c in COMMANDS if not c.startswith("make")]))
def test_command_runs(command: str, here: Path) -> None:
    assert {path.parts[-3] for path in here.glob("runs/*/*/detector.safetensors")} == {"yolo_csp_n", "classify_csp"}
    run_here(as_run_here(command, here / "runs"), here)


@pytest.mark.slow
def test_python_blocks_run(here: Path) -> None:
    names = [block.split()[1] for block in PYTHON]
    assert [name for name in names if not (here / name).is_file()] == []
    for name in names:
        run_here([sys.executable, name], here)
