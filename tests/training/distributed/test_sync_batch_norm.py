"""Joined batch norm over two gloo ranks against torch's batch norm on the joined batch."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from detkit.training.distributed.sync_batch_norm import JoinedBatchNorm2d, SyncBatchNormOnAnyDevice


def images() -> Tensor:
    return torch.randn(5, 3, 4, 6, generator=torch.Generator().manual_seed(0)) * 3 + 2


def network() -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3, momentum=0.2)
    nn.init.uniform_(norm.weight)
    return nn.Sequential(nn.Conv2d(3, 3, 1), norm)


def run(model: nn.Module, batch: Tensor) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    batch = batch.clone().requires_grad_()
    output = model(batch)
    gradients = torch.autograd.grad((output.sin() * output).sum(), [batch, *model.parameters()])
    return output.detach(), list(gradients), model[1].running_mean, model[1].running_var  # type: ignore[index]


def _rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = SyncBatchNormOnAnyDevice(on_cuda=False).apply(network())
    torch.save(run(model, images()[:2] if rank == 0 else images()[2:]), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_uneven_ranks_equal_one_process(tmp_path: Path) -> None:
    spawn(_rank, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    output, gradients, running_mean, running_var = run(network(), images())
    torch.testing.assert_close(torch.cat((first[0], second[0])), output, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat((first[1][0], second[1][0])), gradients[0], rtol=1e-4, atol=1e-5)
    for ours_a, ours_b, expected in zip(first[1][1:], second[1][1:], gradients[1:], strict=True):
        torch.testing.assert_close(ours_a + ours_b, expected, rtol=1e-4, atol=1e-4)
    for ours in (first, second):
        torch.testing.assert_close(ours[2], running_mean)
        torch.testing.assert_close(ours[3], running_var)


def test_one_process_is_plain_batch_norm_and_revert_undoes_apply() -> None:
    plain, joined = network(), SyncBatchNormOnAnyDevice(on_cuda=False).apply(network())
    assert type(joined[1]) is JoinedBatchNorm2d  # type: ignore[index]
    torch.testing.assert_close(run(joined, images()), run(plain, images()))
    assert type(SyncBatchNormOnAnyDevice(on_cuda=False).revert(joined)[1]) is nn.BatchNorm2d  # type: ignore[index]


def test_norm_without_statistics_is_refused() -> None:
    norm = JoinedBatchNorm2d(3, track_running_stats=False)
    with pytest.raises(ValueError, match=r"needs running statistics .* momentum; got none"):
        norm._update_running(torch.zeros(3), torch.ones(3))
