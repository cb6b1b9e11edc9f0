"""The wheel, built and installed into a fresh environment: it works in an empty folder, without the checkout."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import ROOT

SMALL = [
    *("data.image_hw=[64,64]", "data.batch_size=4", "data.num_workers=0", "wandb=disabled", "trainer.accelerator=cpu"),
    *("trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=2"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", "--wheel-dir", str(folder)], check=True)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def detkit(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, installed from the wheel. The libraries are those of the tests; the checkout is not on the path."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, symlinks=True)
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", str(wheel)], check=True)
    site = Path(
        subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    (site / "libraries_of_the_tests.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin/detkit"


def run(command: Path, *words: str, cwd: Path) -> str:
    environment = {"PATH": f"{command.parent}:/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(cwd)}
    done = subprocess.run([command, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_holds_the_recipes_and_the_templates(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("detkit/**/*") if path.suffix in {".py", ".html"}]
    assert wheel.name.startswith("detkit_vision-")
    assert {*files, *(f"detkit/recipes/{path.name}" for path in (ROOT / "recipes").glob("*.yaml"))} <= names
    assert [name for name in names if name.startswith(("tests/", "scripts/", "results/"))] == []


def test_command_lists_recipes_in_an_empty_folder(detkit: Path, tmp_path: Path) -> None:
    assert "yolo_csp_n" in run(detkit, "train", cwd=tmp_path)


@pytest.mark.long
def test_trains_evaluates_predicts_and_exports_in_an_empty_folder(detkit: Path, tmp_path: Path) -> None:
    run(detkit, "train", "recipe=yolo_csp_n", *SMALL, cwd=tmp_path)
    [folder] = tmp_path.glob("runs/yolo_csp_n/*")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (96, 128, 3), np.uint8)).save(tmp_path / "photo.png")
    assert "AP" in run(detkit, "evaluate", f"checkpoint={folder}", "data.num_workers=0", cwd=tmp_path)
    run(detkit, "predict", f"checkpoint={folder}", "source=photo.png", "out=found", cwd=tmp_path)
    assert list((tmp_path / "found").iterdir())
    settings = ("limit=4", "data.num_workers=0", "allow_difference=true")
    run(detkit, "export", f"checkpoint={folder}", "out=model.onnx", *settings, cwd=tmp_path)
    assert (tmp_path / "model.onnx.certificate.json").is_file()
