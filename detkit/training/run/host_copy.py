"""Copies of small tensors to host memory that do not make the GPU wait."""

import torch
from torch import Tensor


class AsyncHostCopy:
    """A copy of a tensor in host memory.

    On a GPU the copy is queued behind the work that computes the values. If later work is queued before ``read`` is
    called, the GPU does not wait for the CPU.

    Args:
        tensor: on any device.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._copy, self._event = tensor.detach(), None
        if tensor.is_cuda:
            self._copy = torch.empty_like(tensor, device="cpu", pin_memory=True)
            self._copy.copy_(tensor.detach(), non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def read(self) -> Tensor:
        """The values on the CPU; waits until the copy is done."""
        if self._event is not None:
            self._event.synchronize()
        return self._copy.cpu()
