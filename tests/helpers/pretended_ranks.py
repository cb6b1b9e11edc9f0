"""Several pretended GPUs: ranks whose process group serves tensors on cuda alone, as NCCL does.

Numbers and gradients go through gloo all the same, from the memory in which the pretended tensors hold them. To be
used in a process that has not computed yet: what it forks would lack the threads of hotcoco, and wait for them.
"""

import faulthandler
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from typing_extensions import override

from tests.helpers import pretended_cuda
from tests.helpers.pretended_cuda import CUDA, CudaTensor, PretendedCuda
from tests.reliability.forked import Ended, Forked, environment

LIMIT_S = 120  # a rank that hangs says where, and ends
COLLECTIVES = ("all_reduce", "broadcast", "reduce", "all_gather", "all_gather_into_tensor", "reduce_scatter_tensor")
USED: list[str] = []  # the collectives of this rank, in order; objects go through others, which bring them to the GPU


class PretendedDDP(DDPStrategy):
    """Gradients averaged over ranks after the backward pass; torch's own module needs a real device for that."""

    def __init__(self) -> None:
        super().__init__(process_group_backend="gloo")

    @property
    @override
    def root_device(self) -> torch.device:
        return CUDA

    @override
    def _setup_model(self, model: torch.nn.Module) -> Any:
        return model

    @override
    def _register_ddp_hooks(self) -> None: ...

    @override
    def post_backward(self, closure_loss: Tensor) -> None:
        assert self.model is not None
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= self.num_processes
        del USED[-sum(parameter.grad is not None for parameter in self.model.parameters()) :]


def on_two_ranks(program: Callable[[], object], folder: Path) -> list[Ended]:
    """Run it in two forks of this process, on a pretended GPU each.

    Args:
        program: what each rank does; its errors end the rank.
        folder: for what they say.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    ranks = []
    for rank in (0, 1):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
        names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
        with environment(**{name: str(value) for name, value in names.items()}):
            ranks.append(Forked(lambda: _on_a_gpu(program), folder / f"{rank}.txt"))
    return [rank.wait() for rank in ranks]


def _on_a_gpu(program: Callable[[], object]) -> None:
    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    rank_zero_only.rank = int(os.environ["RANK"])  # type: ignore[attr-defined]  # as it was when Lightning was imported
    torch.set_num_threads(1)
    pretended_cuda.pretend()
    torch.cuda.device_count = lambda: 2
    for name in COLLECTIVES:
        setattr(torch.distributed, name, _serving_cuda_alone(name, getattr(torch.distributed, name)))
    with PretendedCuda():
        program()


def _serving_cuda_alone(name: str, collective: Callable[..., Any]) -> Callable[..., Any]:
    def served(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(leaf, Tensor) and not isinstance(leaf, CudaTensor) for leaf in tree_leaves((args, kwargs))):
            raise RuntimeError(f"No backend type associated with device type cpu: {name}")
        USED.append(name)
        return collective(*tree_map(pretended_cuda._host, args), **tree_map(pretended_cuda._host, kwargs))

    return served
