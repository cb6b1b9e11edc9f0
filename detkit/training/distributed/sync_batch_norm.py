"""Batch norm over the images of all ranks, on any device.

torch's SyncBatchNorm refuses CPU tensors. This one uses plain torch operations and so works with gloo: two processes
then train as one process does on the joined batch.
"""

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import Tensor, nn

from detkit.ops.precision import at_least_float32


class JoinedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d with batch statistics over all ranks."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """(B, channels, H, W) of this rank to the same shape."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        values = at_least_float32(input)
        count = _SumOverRanks.apply(values.new_tensor(float(input.numel() // input.shape[1])))
        mean = _SumOverRanks.apply(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        var = _SumOverRanks.apply(centred.square().sum((0, 2, 3))) / count
        self._update_running(mean.detach(), var.detach() * count / (count - 1))
        normed = centred * (var + self.eps).rsqrt()[:, None, None]
        return (normed * self.weight[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, unbiased_var: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            raise ValueError("batch norm over all ranks needs running statistics and a momentum; got none")
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased_var, self.momentum)


class SyncBatchNormOnAnyDevice(TorchSyncBatchNorm):
    """The plugin of ``trainer.sync_batchnorm=true``: torch's SyncBatchNorm on CUDA, ``JoinedBatchNorm2d`` elsewhere.

    Args:
        on_cuda: whether the model trains on CUDA devices.
    """

    def __init__(self, on_cuda: bool) -> None:
        self.on_cuda = on_cuda

    def apply(self, model: nn.Module) -> nn.Module:
        """The model with every batch norm synchronised; parameters and buffers stay the same objects."""
        return super().apply(model) if self.on_cuda else _change_class(model, nn.BatchNorm2d, JoinedBatchNorm2d)

    def revert(self, model: nn.Module) -> nn.Module:
        """The model with plain batch norms again."""
        return super().revert(model) if self.on_cuda else _change_class(model, JoinedBatchNorm2d, nn.BatchNorm2d)


class _SumOverRanks(torch.autograd.Function):
    """Sum of a tensor over all ranks. The backward pass sums the gradients of all ranks."""

    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(_: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad


def _change_class(model: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> nn.Module:
    for module in model.modules():
        if type(module) is old:
            module.__class__ = new
    return model
