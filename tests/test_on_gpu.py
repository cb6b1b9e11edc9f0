"""What only a GPU shows: the numbers of the CPU, whole runs that are cut and resumed, half precision, two of them.

All but the last runs on a pretended GPU too, see tests/test_pretended_cuda.py.
"""

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from detkit import recipe
from detkit.api import run_parts
from detkit.inference import Predictor
from detkit.ops.targets import pack_targets
from detkit.training import train
from detkit.types import ImageLabels, Target, Targets
from results.gpu_waits import OF_RECIPE, SMALL
from tests.helpers import ROOT
from tests.helpers.exact_runs import exact_parts, press
from tests.helpers.toy import toy_parts
from tests.reliability.non_finite import AfterStep

gpu = pytest.mark.gpu
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at cuBLAS's first call; else it refuses to be exact
CLASSES = 3


def built(name: str, part: str) -> Any:
    """A part of a small recipe; with all of its random weights at work."""
    config = recipe.load([f"recipe={name}", *SMALL.split(), *OF_RECIPE[name].split()]).config
    config["model"]["head"]["num_classes"] = CLASSES
    torch.manual_seed(0)
    return recipe.instantiate(config[part])


def trained_a_little(name: str) -> Any:
    """In double precision, so that nothing but rounding to 16 digits tells the devices apart."""
    model = built(name, "model").double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model


def moved(value: Any, device: str) -> Any:
    return tree_map(lambda leaf: leaf.detach().to(device) if isinstance(leaf, Tensor) else leaf, value)


def assert_equal(found: Any, expected: Any, rtol: float = 1e-8, atol: float = 1e-10) -> None:
    pairs = list(zip(tree_leaves(found), tree_leaves(expected), strict=True))
    assert any(isinstance(one, Tensor) for one, _ in pairs)
    for one, other in pairs:
        if isinstance(one, Tensor):
            torch.testing.assert_close(one.cpu(), other, rtol=rtol, atol=atol)
        else:
            assert one == other


def targets(name: str) -> Targets | ImageLabels:
    """The first image has three equal boxes, two of them of one class; the second has none."""
    if name.startswith("classify"):
        return ImageLabels(torch.tensor([0, 2]), np.arange(2))
    boxes = torch.tensor([[8.0, 4, 40, 36], [8, 4, 40, 36], [8, 4, 40, 36], [20, 20, 60, 50]], dtype=torch.float64)
    nothing, no_labels = torch.zeros(0, 4, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
    crowd = torch.tensor([[0.0, 40, 20, 64]], dtype=torch.float64)
    first = Target(boxes, torch.tensor([1, 0, 1, 2]), crowd, 0, (64, 64))
    return pack_targets([first, Target(nothing, no_labels, nothing, 1, (64, 64))])


@gpu
@pytest.mark.parametrize("name", OF_RECIPE)
def test_predictions_and_what_is_found_are_those_of_the_cpu(name: str) -> None:
    model, decode = trained_a_little(name).eval(), built(name, "decode")
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = model(images)
        found = model.cuda()(images.cuda())
    assert all(leaf.is_cuda for leaf in tree_leaves(found) if isinstance(leaf, Tensor))
    assert_equal(found, expected)
    assert_equal(decode(found), decode(expected))


@gpu
@pytest.mark.parametrize("name", OF_RECIPE)
def test_assignment_losses_and_gradients_are_those_of_the_cpu(name: str) -> None:
    """Of given predictions, the same every time, though ground truths are equal."""
    model, loss, truth = trained_a_little(name).train(), built(name, "loss"), targets(name)
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    predictions = moved(model(images, truth) if model.takes_targets else model(images), "cpu")

    def computed(device: str) -> list[Any]:
        given = tree_map(
            lambda leaf: leaf.requires_grad_() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf,
            moved(predictions, device),
        )
        terms = loss(given, moved(truth, device))
        torch.stack(list(terms.values())).sum().backward()
        return [terms, [leaf.grad for leaf in tree_leaves(given) if isinstance(leaf, Tensor) and leaf.grad is not None]]

    expected = computed("cpu")
    for _ in range(5):
        assert_equal(computed("cuda"), expected)


@gpu
@pytest.mark.slow
@pytest.mark.parametrize("name", OF_RECIPE)
def test_a_run_of_each_family(name: str, tmp_path: Path) -> None:
    """In bfloat16, with a validation."""
    if torch.cuda.get_device_name() == "pretended":
        pytest.skip("tests/test_pretended_cuda.py trains each family")
    given = [f"recipe={name}", f"runs_dir={tmp_path}", *SMALL.split(), *OF_RECIPE[name].split()]
    done = train(run_parts(recipe.load(given)))
    assert done.epoch == 1 and all(np.isfinite(value) for value in done.numbers.values())


@gpu
@pytest.mark.parametrize("name", [name for name in OF_RECIPE if not name.startswith("classify")])
def test_predict_finds_what_it_finds_on_the_cpu(name: str) -> None:
    """In float32, which a GPU rounds to fewer digits in convolutions: the best scores, whatever their order."""
    names = [str(label) for label in range(CLASSES)]
    decode = built(name, "decode").with_threshold(0.0)
    predictor = Predictor(trained_a_little(name).float(), decode, names, (64, 64), "letterbox")
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    expected, found = (predictor.to(device).predict(image, score_threshold=0.0) for device in ("cpu", "cuda"))
    assert len(expected) > 20 and len(found) == pytest.approx(len(expected), rel=0.1)
    np.testing.assert_allclose(found.scores[:20], expected.scores[:20], rtol=0, atol=0.01)


def rows(runs: Path) -> list[dict[str, float]]:
    [path] = runs.glob("toy/*/metrics.csv")
    with path.open() as file:
        return [{name: float(value or "nan") for name, value in row.items()} for row in csv.DictReader(file)]


def without_time(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if not name.endswith(("_s", "seconds", "images_per_s"))}


def assert_like_the_cpu(runs: Path, folder: Path) -> None:
    """The table and the kept weights of a run that was never stopped, in one process on the CPU."""
    train(exact_parts(folder / "cpu", "cpu"))
    expected = [pytest.approx(without_time(row), rel=1e-6, nan_ok=True) for row in rows(folder / "cpu")]
    assert [without_time(row) for row in rows(runs)] == expected
    kept, wanted = (load_file(next(of.glob("toy/*/detector.safetensors"))) for of in (runs, folder / "cpu"))
    assert kept.keys() == wanted.keys()
    for name, value in kept.items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-6, atol=1e-7)


@gpu
@pytest.mark.parametrize("step", [3, 6])
def test_a_run_that_is_cut_and_resumed_has_the_numbers_of_the_cpu(step: int, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        train(exact_parts(tmp_path / "gpu", "gpu", AfterStep(press, step=step), checkpoint={"every_n_steps": 1}))
    train(exact_parts(tmp_path / "gpu", "gpu", checkpoint={"every_n_steps": 1}, resume=True))
    assert_like_the_cpu(tmp_path / "gpu", tmp_path)


@pytest.fixture
def _deterministic() -> Iterator[None]:
    """Lightning does not take it back."""
    yield
    torch.use_deterministic_algorithms(False)


@gpu
@pytest.mark.usefixtures("_deterministic")
def test_two_runs_from_one_seed_are_equal(tmp_path: Path) -> None:
    """With dropout, in float32."""
    weights = []
    for number in range(2):
        given = {"accelerator": "gpu", "devices": 1, "deterministic": True}
        parts = toy_parts(tmp_path / str(number), epochs=1, trainer=given)
        train(parts)
        weights.append([value.cpu() for value in parts.model.state_dict().values()])
    assert all(map(torch.equal, *weights))


@gpu
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # the scaler skips the first steps
def test_half_precision_with_its_scaler(tmp_path: Path) -> None:
    parts = toy_parts(tmp_path, epochs=2, trainer={"accelerator": "gpu", "devices": 1, "precision": "16-mixed"})
    train(parts)
    first, last = rows(tmp_path)
    assert last["train/loss"] < first["train/loss"]
    assert all(parameter.isfinite().all() for parameter in parts.model.parameters())


TWO = """
import sys
from pathlib import Path
import pytest, torch
torch.set_num_threads(1)
from detkit.inference import Predictor
from detkit.training import train
from tests.reliability.non_finite import AfterStep
from tests.helpers.exact_runs import exact_parts, press
runs, accelerator = Path(sys.argv[1]), sys.argv[2]
with pytest.raises(SystemExit):
    train(exact_parts(runs, accelerator, AfterStep(press, step=6), devices=2, checkpoint={"every_n_steps": 1}))
train(exact_parts(runs, accelerator, devices=2, checkpoint={"every_n_steps": 1}, resume=True))
"""
needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")


@pytest.mark.slow
@pytest.mark.parametrize("accelerator", ["cpu", pytest.param("gpu", marks=[gpu, needs_two])])
def test_two_ranks_that_are_cut_and_resumed_have_the_numbers_of_one(accelerator: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(TWO)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, program, tmp_path / "two", accelerator],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert_like_the_cpu(tmp_path / "two", tmp_path)
