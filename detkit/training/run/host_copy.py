"""Copies of small tensors from the device to the host that the GPU does not wait for."""

import torch
from torch import Tensor


class AsyncHostCopy:
    """A copy of a tensor in the host's memory.

    Note [no stall]: on a GPU the copy is queued behind the work that computes the numbers. If they are read
    after later work was queued, the copy is done or nearly done, and the GPU does not wait for the CPU.

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
        """The numbers, on the host; waits until they are there."""
        if self._event is not None:
            self._event.synchronize()
        return self._copy.cpu()
