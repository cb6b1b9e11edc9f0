"""Whole runs on a pretended GPU: no operation on two devices, no wait but those that are known.

A GPU is not needed; what only a real one shows is marked gpu, and is run here on the pretended one too.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers import ROOT
from tests.helpers.pretended_cuda import CUDA, EVENTS, on_pretended_cuda
from tests.helpers.warm_scripts import run_script

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU, which a fork cannot use")


def kinds(call: Callable[[], Any]) -> list[list[str]]:
    """What the harness notes of a call."""
    EVENTS.clear()
    call()
    return [[event.kind, event.what] for event in EVENTS]


def refused(call: Callable[[], Any]) -> bool:
    try:
        call()
    except RuntimeError as error:
        return "same device" in str(error)
    return False


def test_waits_and_copies_are_found(tmp_path: Path) -> None:
    def program() -> dict[str, Any]:
        x, y = torch.arange(4.0, device="cuda"), torch.zeros(4)
        places = torch.tensor([1, 2]).to("cuda", non_blocking=True)
        return {
            "computes": kinds(lambda: (x * 2.0 + torch.tensor(1.0)).softmax(0).where(x > 1, 0.0)[places]),
            "item": kinds(lambda: x.sum().item()),
            "a condition": kinds(lambda: bool((x > 1).any())),
            "list": kinds(x.tolist),
            "mask": kinds(lambda: x[x > 1]),
            "nonzero": kinds(x.nonzero),
            "numbers of Python": kinds(lambda: x.new_tensor([1.0])),
            "a number in places": kinds(lambda: x.__setitem__(places, 1.0)),
            "to the device": kinds(lambda: y.to("cuda")),
            "to the device, later": kinds(lambda: y.to("cuda", non_blocking=True)),
            "into the host's memory": kinds(lambda: torch.empty(4, pin_memory=True).copy_(x, non_blocking=True)),
            "event": kinds(lambda: torch.cuda.Event().synchronize()),
        }

    assert on_pretended_cuda(program, tmp_path) == {
        "computes": [],
        "item": [["wait", "local_scalar_dense"]],
        "a condition": [["wait", "local_scalar_dense"]],
        "list": [["wait", "copy to the host"]],
        "mask": [["wait", "index by a mask"]],
        "nonzero": [["wait", "nonzero"]],
        "numbers of Python": [["wait", "copy to the device"]],
        "a number in places": [["wait", "copy to the device, in index_put"]],
        "to the device": [["wait", "copy to the device"]],
        "to the device, later": [["copy", "copy to the device"]],
        "into the host's memory": [["copy", "copy to the host"]],
        "event": [["wait", "event"]],
    }


def test_two_devices_in_one_operation_are_refused(tmp_path: Path) -> None:
    def program() -> dict[str, bool]:
        x, y = torch.ones(4, device="cuda"), torch.ones(4)
        return {
            "add": refused(lambda: x + y),
            "cat": refused(lambda: torch.cat((x, y))),
            "stack of numbers": refused(lambda: torch.stack((x.sum(), y.sum()))),
            "places on the device": refused(lambda: y[x.long()]),
            "in place": refused(lambda: y.add_(x)),
            "a number": refused(lambda: x * y.sum()),
            "places on the host": refused(lambda: x[y.long()]),
        }

    allowed = {"a number", "places on the host"}
    assert {name for name, is_refused in on_pretended_cuda(program, tmp_path).items() if not is_refused} == allowed


def test_numbers_gradients_and_devices_are_those_of_torch(tmp_path: Path) -> None:
    """A step of a network with everything that changes shapes on the way back."""

    def step(device: str) -> tuple[list[Any], list[str]]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)).double()
        images = torch.rand(2, 3, 6, 6).double()
        before = list(net.parameters())
        net.to(device)
        assert all(one is other for one, other in zip(before, net.parameters(), strict=True))
        x = net(images.to(device))
        (x.square().mean(1, keepdim=True) * x + x[x > 0].sum()).sum().backward()
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        tensors = [*net.parameters(), *net.buffers(), *(p.grad for p in net.parameters() if p.grad is not None)]
        return [tensor.detach().tolist() for tensor in tensors], [str(tensor.device) for tensor in tensors]

    numbers, devices = on_pretended_cuda(lambda: step("cuda"), tmp_path)
    assert set(devices) == {str(CUDA)}
    for ours, expected in zip(numbers, step("cpu")[0], strict=True):
        torch.testing.assert_close(torch.tensor(ours), torch.tensor(expected), rtol=1e-9, atol=1e-12)


def test_autocast_is_that_of_cuda(tmp_path: Path) -> None:
    """On the CPU a softmax stays in bfloat16, and the product of a matrix and a vector in float32."""

    def program() -> list[str]:
        x = torch.ones(4, 4, device="cuda")
        with torch.autocast("cuda", torch.bfloat16):
            results: list[Tensor] = [x @ x, torch.mv(x, x[0]), x.bfloat16().softmax(0)]
        return [str(result.dtype) for result in results]

    assert on_pretended_cuda(program, tmp_path) == ["torch.bfloat16", "torch.bfloat16", "torch.float32"]


KNOWN = {  # of a step: copies of the batch, files that wait for a copy, and by file all other waits; fewer are better
    "yolo_csp_n": (6, ["training/run/host_copy.py"], {"assign/task_aligned.py": 9, "losses/matching.py": 1}),
    "yolox_nano": (
        6,
        ["training/run/host_copy.py"],
        {"assign/sim_ota.py": 10, "losses/matching.py": 1, "losses/yolox.py": 2},
    ),
    "rtdetr_shufflenet": (6, ["assign/hungarian.py", "training/run/host_copy.py"], {}),
    "classify_csp": (2, ["training/run/host_copy.py"], {}),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("yolo_csp_n", "rtdetr_shufflenet"),
        *(pytest.param(name, marks=pytest.mark.long) for name in ("yolox_nano", "classify_csp")),
    ],
)
def test_a_run_of_each_family(name: str) -> None:
    """Transfer, forward, loss, backward, clipping, optimizer, EMA, validation and saving; and what a step waits for."""
    done = run_script(["-m", "results.gpu_waits", name])
    assert done.returncode == 0, done.stderr[-3000:]
    awaited, waits, copies = Counter(), Counter(), Counter()
    for line in done.stdout.splitlines()[3:]:
        place, what, count = (word.strip() for word in line.strip("|").split("|"))
        counter = awaited if what == "event" else waits if what.startswith("wait: ") else copies
        counter[place.partition(":")[0]] += int(count)
    of_batch = sum(count for place, count in copies.items() if place.startswith("lightning/"))
    assert (of_batch, sorted(awaited.elements()), waits) == KNOWN[name]


@pytest.mark.long
def test_what_needs_a_gpu_passes_on_a_pretended_one() -> None:
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in path.read_text()]
    options = ["-p", "tests.helpers.pretended_cuda", "-p", "no:cacheprovider", "-m", "gpu", "-q"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *map(str, files)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
