"""A GPU without a GPU: tensors that say cuda:0 and hold real numbers on the CPU.

An operation on tensors of two devices raises, as it does on a GPU. What makes the host wait for the device, and every
copy between the two, is noted in ``EVENTS`` with the line that asked for it. Everything else is computed as on the CPU,
in the precision that ``torch.autocast("cuda")`` chooses.

It changes torch for the whole process, so ``on_pretended_cuda`` works in a fork, and pytest can run the tests that need
a GPU on it:

    python -m pytest -p tests.helpers.pretended_cuda -m gpu
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NamedTuple, Self

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import _engine_run_backward as torch_runs_backward
from torch.optim.optimizer import _foreach_supported_types as of_optimizers
from torch.utils._foreach_utils import _foreach_supported_types as of_foreach
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from tests.helpers import ROOT
from tests.reliability.forked import run

CUDA = torch.device("cuda", 0)
# the size or the value of the result must come to the host; those of unique and nms are waited for inside of the kernel
WAITING = (
    *("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "bincount", "repeat_interleave"),
    *("_unique2", "unique_dim", "unique_consecutive", "nms"),
)
INDEXING = ("index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_")


class Event(NamedTuple):
    """What a GPU would do beside computing."""

    kind: Literal["wait", "copy"]  # a copy is one that nothing waits for
    what: str
    place: str  # file:line


EVENTS: list[Event] = []


class CudaTensor(Tensor):
    """Says that it lies on cuda:0; its numbers lie in ``host``."""

    host: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __new__(cls, host: Tensor) -> Self:
        layout: dict[str, Any] = {"strides": host.stride(), "storage_offset": host.storage_offset()}
        with torch.inference_mode(False):  # a view of a parameter, made in inference mode, is an ordinary tensor
            return Tensor._make_wrapper_subclass(cls, host.shape, **layout, dtype=host.dtype, device=CUDA)  # type: ignore[attr-defined]

    def __init__(self, host: Tensor) -> None:
        self.host = host

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """With these two torch knows that ``module.to`` must swap tensors, not their storages."""
        return ["host"], None

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, Tensor], *_: Any) -> "CudaTensor":
        return CudaTensor(parts["host"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        """With a setter that takes the numbers too."""
        return self.detach()

    @data.setter
    def data(self, new: Tensor) -> None:
        Tensor.data.__set__(self, new)  # type: ignore[attr-defined]
        self.host = _host(new)

    def tolist(self) -> Any:
        """Torch's own refuses subclasses."""
        return self.detach().cpu().tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Files hold its numbers, as a tensor of the CPU."""
        return self.host.__reduce_ex__(protocol)

    def __repr__(self, **_: Any) -> str:
        return f"CudaTensor({self.host!r})"


class PretendedCuda(TorchDispatchMode):
    """Sees what is made on the device of nothing: ``torch.zeros(3, device="cuda")``."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here, and to say so at every operation takes time."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation, on the CPU; what a GPU would refuse, copy or wait for is refused or noted."""
    if torch.is_inference_mode_enabled() and func._can_decompose():  # else autograd takes operations apart before
        with PretendedCuda():
            return func.decompose(*args, **kwargs)
    name = func.overloadpacket.__name__
    if name == "is_pinned":
        return False
    if name == "_pin_memory":
        return args[0]
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    on_cuda = any(isinstance(tensor, CudaTensor) for tensor in tensors)
    wanted = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
    if name in ("_to_copy", "copy_"):
        _note_copy(name, args, kwargs, wanted)
    elif on_cuda:
        _refuse_two_devices(func, name, args, tensors)
        _note_wait(name, args)
    kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"}
    if wanted == "cuda":
        kwargs["device"] = torch.device("cpu")
    with _disable_current_modes():
        result = func(*tree_map(_host, args), **tree_map(_host, kwargs))
    is_number = name == "_local_scalar_dense"
    known = {id(_host(tensor)): tensor for tensor in tensors}  # an operation in place gives what it was given
    stays = is_number or not (wanted == "cuda" or (wanted is None and on_cuda))

    def told(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return known.get(id(value), value if stays else CudaTensor(value))

    return tree_map(told, result)


def _host(value: Any) -> Any:
    return value.host if isinstance(value, CudaTensor) else value


def _note_copy(name: str, args: Any, kwargs: dict[str, Any], wanted: str | None) -> None:
    source = args[-1 if name == "_to_copy" else 1]
    goal = wanted == "cuda" if name == "_to_copy" else isinstance(args[0], CudaTensor)
    if (name == "_to_copy" and wanted is None) or goal == isinstance(source, CudaTensor):
        return
    goes_on = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
    note("copy" if goes_on else "wait", "copy to the device" if goal else "copy to the host")


def _refuse_two_devices(func: Any, name: str, args: Any, tensors: Sequence[Tensor]) -> None:
    """But for what torch allows: numbers among elements, and places, which it brings to the device."""
    for tensor in tensors:
        if isinstance(tensor, CudaTensor):
            continue
        is_number = tensor.dim() == 0
        if name in INDEXING and isinstance(args[0], CudaTensor) and (is_number or tensor.dtype == torch.int64):
            note("wait", f"copy to the device, in {name.strip('_')}")
        elif not (is_number and (torch.Tag.pointwise in func.tags or name.startswith("_foreach"))):
            devices = ", ".join(f"{tuple(one.shape)} on {one.device}" for one in tensors)
            raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got {devices}")


def _note_wait(name: str, args: Any) -> None:
    if name in WAITING:
        note("wait", name.strip("_"))
    elif name in INDEXING and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
        note("wait", f"{name.strip('_')} by a mask")


def note(kind: Literal["wait", "copy"], what: str) -> None:
    """Remember it; raise where the test has asked torch to raise at every wait."""
    if kind == "wait" and _sync_debug_mode["is"] == "error" and what != "event":
        raise RuntimeError(f"called a synchronizing CUDA operation: {what}")
    EVENTS.append(Event(kind, what, _place()))


def _place() -> str:
    """The innermost line of detkit that says something, else of Lightning, else of a test."""
    frame: FrameType | None = sys._getframe(1)
    others = ""
    while frame is not None:
        path, _, name = frame.f_code.co_filename.rpartition("/detkit/")
        if path == str(ROOT) and name not in ("training/train.py", "training/evaluate.py"):  # they call all others
            return f"detkit/{name}:{frame.f_lineno}"
        _, library, name = frame.f_code.co_filename.rpartition("/lightning/")
        if library and not others:
            others = f"lightning/{name}:{frame.f_lineno}"
        frame = frame.f_back
    return others or "elsewhere"


class _Event:
    """Of torch.cuda: the copy that it was recorded after is there at once."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def record(self, *_: Any) -> None: ...

    def synchronize(self) -> None:
        note("wait", "event")


_sync_debug_mode: dict[str, Any] = {"is": "default"}


def pretend() -> None:
    """Make torch believe in a GPU, in this process and for good; its tensors are made under ``PretendedCuda()``."""
    torch._C._ensureCUDADeviceGuardSet()
    torch._C._set_only_lift_cpu_tensors(True)  # else torch.tensor(1.0, device="cuda") would really go there
    torch.backends.cudnn.enabled = False  # the kernels of cuDNN have operations of their own, which no CPU has
    torch.autograd._engine_run_backward = _run_engine  # type: ignore[attr-defined]
    for types in (of_optimizers, of_foreach):
        types.append(CudaTensor)
    answers = dict.fromkeys(("_lazy_init", "set_device", "empty_cache", "manual_seed_all", "set_rng_state_all"))
    answers |= {"is_available": True, "is_bf16_supported": True, "device_count": 1, "current_device": 0}
    answers |= {"get_device_capability": (9, 0), "get_device_name": "pretended", "get_rng_state_all": []}
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    torch.cuda.Event = _Event  # type: ignore[misc]
    torch.cuda.synchronize = lambda *_: note("wait", "synchronize")
    torch.cuda.set_sync_debug_mode = lambda mode: _sync_debug_mode.update({"is": mode})


def _run_engine(outputs: Sequence[Tensor], gradients: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
    """Torch's own, but for tensors of the pretended GPU: it would ask the driver for the streams of their device."""
    if not any(isinstance(output, CudaTensor) for output in outputs):
        return torch_runs_backward(outputs, gradients, *args, **kwargs)
    if args[2]:
        raise NotImplementedError("torch.autograd.grad on a pretended GPU: only backward() for all leaves is there")
    return _run_backward(outputs, gradients)


def _run_backward(outputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """``backward()`` node by node; hooks of tensors are not called."""
    roots: list[tuple[Any, int]] = [(output.grad_fn, output.output_nr) for output in outputs]
    awaited, seen, stack = Counter(), set(), [node for node, _ in roots]
    while stack:
        if (node := stack.pop()) not in seen:
            seen.add(node)
            followers = [follower for follower, _ in node.next_functions if follower is not None]
            awaited.update(followers)
            stack += followers
    arrived: dict[Any, dict[int, Tensor]] = defaultdict(dict)

    def arrive(node: Any, number: int, gradient: Tensor | None) -> None:
        if gradient is None:
            return
        about = node._input_metadata[number]
        gradient = gradient.sum_to_size(about.shape).to(about.dtype)
        arrived[node][number] = arrived[node][number] + gradient if number in arrived[node] else gradient

    for (node, number), gradient in zip(roots, gradients, strict=True):
        arrive(node, number, gradient)
    ready = [node for node in dict(roots) if not awaited[node]]
    with torch.no_grad():
        while ready:
            node = ready.pop()
            of_node = arrived.pop(node, {})
            result = node(*(of_node.get(number) for number in range(len(node._input_metadata))))
            results = result if isinstance(result, tuple) else (result,)
            for (follower, number), gradient in zip(node.next_functions, results, strict=False):
                if follower is not None:
                    arrive(follower, number, gradient)
                    awaited[follower] -= 1
                    if not awaited[follower]:
                        ready.append(follower)


def on_pretended_cuda(program: Callable[[], Any], folder: Path) -> Any:
    """What the program returns, as JSON has it; it runs in a fork of this process, and so may not compute an AP.

    hotcoco's threads are not in a fork, which would wait for them if this process has computed one.

    Args:
        program: what to run.
        folder: for what it says and returns.
    """

    def child() -> None:
        torch.set_num_threads(1)
        pretend()
        with PretendedCuda():
            found = program()
        (folder / "found.json").write_text(json.dumps(found))

    ended = run(child, folder / "said.txt")
    assert ended.code == 0, ended.said[-3000:]
    return json.loads((folder / "found.json").read_text())


def pytest_configure() -> None:
    """As a plugin of pytest: before any test is collected."""
    pretend()


@pytest.fixture(autouse=True)
def _on_pretended_cuda() -> Iterator[None]:
    with PretendedCuda():
        yield
